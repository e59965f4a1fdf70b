//! Which crate may depend on which. The table is the architecture: everything points inwards, to the domain.

use std::path::Path;

use serde_json::Value;

use crate::{Failure, conclude, output};

/// What each crate of ours may use of ours. A crate that is not here, or not in a folder with a rule, is a finding.
const ALLOWED: &[(&str, &[&str])] = &[
    ("connector-domain", &[]),
    ("connector-contracts", &["connector-domain"]),
    ("connector-ports", &["connector-domain"]),
    ("connector-settings", &[]),
    ("connector-telemetry", &["connector-settings"]),
    ("connector-runtime", &["connector-domain", "connector-contracts", "connector-ports", "connector-telemetry"]),
    ("connector-kafka", ADAPTER),
    ("connector-redis", ADAPTER),
    ("connector-embedded", ADAPTER),
    ("connector-whatsapp", ADAPTER),
    ("connector-simulated", &["connector-domain", "connector-ports", "connector-embedded"]),
    ("connector-host", INSIDE_HOST),
    ("cloud-api-simulator", &[]),
    ("local-stack", &[]),
    ("connector-bench", MEASURED),
    ("connector-demo", &["local-stack"]),
    ("connector-chaos", HARMED),
    ("xtask", &["connector-contracts", "connector-settings"]),
];

const ADAPTER: &[&str] = &["connector-domain", "connector-ports", "connector-settings"];

const INSIDE_HOST: &[&str] = &[
    "connector-domain",
    "connector-contracts",
    "connector-ports",
    "connector-settings",
    "connector-telemetry",
    "connector-runtime",
    "connector-kafka",
    "connector-redis",
    "connector-embedded",
    "connector-whatsapp",
];

/// What `make bench` measures directly; the services it runs as processes.
const MEASURED: &[&str] = &[
    "connector-domain",
    "connector-contracts",
    "connector-ports",
    "connector-runtime",
    "connector-kafka",
    "connector-embedded",
    "connector-whatsapp",
    "connector-settings",
    "connector-demo",
    "connector-redis",
    "connector-telemetry",
    "window-timer",
    "opt-in-tracker",
    "local-stack",
];

/// What `make chaos` writes commands with and reads log and gate with; the services are processes.
const HARMED: &[&str] = &[
    "connector-domain",
    "connector-contracts",
    "connector-ports",
    "connector-runtime",
    "connector-kafka",
    "connector-redis",
    "connector-whatsapp",
    "connector-demo",
    "local-stack",
];

/// Only for tests: dev-dependencies of anybody, dependencies of the test crates.
const FOR_TESTS: &[&str] = &["connector-testkit", "connector-simulated", "cloud-api-simulator", "local-stack"];

/// Crates of others that stay behind one wall of ours, and who is behind it.
const WRAPPED: &[(&str, &[&str])] = &[
    // The bench measures a bare producer beside our own.
    ("rdkafka", &["connector-kafka", "connector-testkit", "connector-bench"]),
    ("redis", &["connector-redis"]),
    ("rusqlite", &["connector-embedded", "conversation-api"]),
    ("apache-avro", &["connector-contracts", "xtask"]),
    (
        "reqwest",
        &[
            "connector-whatsapp",
            "cloud-api-simulator",
            "connectorctl",
            "connector-demo",
            "connector-chaos",
            "connector-testkit",
            "webhook-receiver",
            TESTS,
        ],
    ),
];

/// The name under which the crate of the `tests` folder goes here, whatever its package is called.
const TESTS: &str = "tests/";

/// One crate of the workspace, as far as the rules look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its folder, from the root of the repository, with `/`.
    pub folder: String,
    /// Names of what it depends on.
    pub dependencies: Vec<Dependency>,
}

/// One arrow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependency {
    /// The package it points to.
    pub name: String,
    /// True for a dev-dependency.
    pub dev: bool,
}

/// Checks the workspace under `root`; the number of its crates.
///
/// # Errors
/// The arrows that should not be there, or when `cargo metadata` does not answer.
pub fn check_workspace(root: &Path) -> Result<usize, Failure> {
    let text = output(root, "cargo", &["metadata", "--format-version", "1", "--no-deps", "--offline"])?;
    let metadata: Value = serde_json::from_str(&text).map_err(|e| Failure::broken("cargo metadata", e))?;
    let packages = packages(&metadata)?;
    conclude("dependencies that point the wrong way", findings(&packages))?;
    Ok(packages.len())
}

/// The crates of the answer of `cargo metadata --no-deps`.
///
/// # Errors
/// When the answer has another shape.
pub fn packages(metadata: &Value) -> Result<Vec<Package>, Failure> {
    let missing = |what: &str| Failure::broken("cargo metadata", format!("no {what}"));
    let text = |value: &Value, what: &str| value[what].as_str().map(str::to_owned).ok_or_else(|| missing(what));
    let root = text(metadata, "workspace_root")?;
    metadata["packages"]
        .as_array()
        .ok_or_else(|| missing("packages"))?
        .iter()
        .map(|package| {
            let manifest = text(package, "manifest_path")?;
            let folder = manifest.trim_start_matches(&root).trim_start_matches('/').trim_end_matches("/Cargo.toml");
            let dependencies = package["dependencies"].as_array().ok_or_else(|| missing("dependencies"))?;
            let dependencies = dependencies
                .iter()
                .map(|d| Ok(Dependency { name: text(d, "name")?, dev: d["kind"] == "dev" }))
                .collect::<Result<_, Failure>>()?;
            Ok(Package { name: text(package, "name")?, folder: folder.to_owned(), dependencies })
        })
        .collect()
}

/// The arrows that should not be there, one sentence each.
#[must_use]
pub fn findings(packages: &[Package]) -> Vec<String> {
    let mut findings = Vec::new();
    for package in packages {
        for dependency in &package.dependencies {
            let target = packages.iter().find(|p| p.name == dependency.name);
            let fine = match target {
                Some(target) => ours(package, target, dependency.dev),
                None => theirs(package, &dependency.name),
            };
            if !fine {
                let dev = if dependency.dev { "dev-" } else { "" };
                findings
                    .push(format!("{} ({}) may not {dev}depend on {}", package.name, package.folder, dependency.name));
            }
        }
    }
    findings
}

fn ours(from: &Package, to: &Package, dev: bool) -> bool {
    // A crate that tests itself with a feature switched on.
    if dev && from.name == to.name {
        return true;
    }
    if dev && FOR_TESTS.contains(&to.name.as_str()) {
        return true;
    }
    if let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == from.name) {
        return allowed.contains(&to.name.as_str());
    }
    let inside = INSIDE_HOST.contains(&to.name.as_str()) || to.name == "connector-host";
    let service = to.folder.starts_with("services/") && to.name != "connector";
    match (from.name.as_str(), from.folder.split('/').next()) {
        // One process with everything in it, WhatsApp included.
        ("connector", _) => inside || service || to.name == "cloud-api-simulator",
        ("connector-testkit", _) => inside || FOR_TESTS.contains(&to.name.as_str()),
        (_, Some("tests")) => true,
        // It folds as they do, to compare.
        ("connectorctl", _) => inside || ["opt-in-tracker", "window-timer"].contains(&to.name.as_str()),
        (_, Some("services")) => inside,
        _ => false,
    }
}

fn theirs(from: &Package, to: &str) -> bool {
    let Some((_, users)) = WRAPPED.iter().find(|(name, _)| *name == to) else { return true };
    users.contains(&from.name.as_str()) || (users.contains(&TESTS) && from.folder == "tests")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn graph(edges: &[(&str, &str, &[&str], &[&str])]) -> Vec<Package> {
        let packages: Vec<Value> = edges
            .iter()
            .map(|(folder, name, normal, dev)| {
                let normal = normal.iter().map(|d| json!({"name": d, "kind": null}));
                let dev = dev.iter().map(|d| json!({"name": d, "kind": "dev"}));
                json!({
                    "name": name,
                    "manifest_path": format!("/repo/{folder}/Cargo.toml"),
                    "dependencies": normal.chain(dev).collect::<Vec<_>>(),
                })
            })
            .collect();
        super::packages(&json!({"workspace_root": "/repo", "packages": packages})).expect("the shape of cargo metadata")
    }

    fn made_up(edges: &[(&str, &str, &[&str], &[&str])]) -> Vec<String> {
        let all: [(&str, &str, &[&str], &[&str]); 6] = [
            ("crates/domain", "connector-domain", &["serde"], &[]),
            ("crates/ports", "connector-ports", &["connector-domain"], &[]),
            ("crates/simulated", "connector-simulated", &["connector-ports"], &[]),
            ("crates/testkit", "connector-testkit", &["rdkafka", "connector-simulated"], &[]),
            ("services/window-timer", "window-timer", &["connector-ports"], &["connector-simulated"]),
            ("tools/cloud-api-simulator", "cloud-api-simulator", &["reqwest"], &[]),
        ];
        findings(&graph(&all.iter().chain(edges).copied().collect::<Vec<_>>()))
    }

    #[test]
    fn arrows_that_point_inwards_are_fine() {
        let connector = ("services/connector", "connector", &["window-timer", "cloud-api-simulator"][..], &[][..]);
        let tests = ("tests", "system-tests", &[][..], &["connector-testkit", "window-timer", "reqwest"][..]);
        assert_eq!(made_up(&[connector, tests]), Vec::<String>::new());
    }

    #[test]
    fn arrows_that_point_outwards_are_named() {
        for (folder, name, dependency, finding) in [
            (
                "crates/kafka",
                "connector-kafka",
                "window-timer",
                "connector-kafka (crates/kafka) may not depend on window-timer",
            ),
            ("crates/redis", "connector-redis", "rdkafka", "connector-redis (crates/redis) may not depend on rdkafka"),
            (
                "services/opt-in-tracker",
                "opt-in-tracker",
                "window-timer",
                "opt-in-tracker (services/opt-in-tracker) may not depend on window-timer",
            ),
            (
                "services/opt-in-tracker",
                "opt-in-tracker",
                "connector-simulated",
                "opt-in-tracker (services/opt-in-tracker) may not depend on connector-simulated",
            ),
            (
                "services/opt-in-tracker",
                "opt-in-tracker",
                "reqwest",
                "opt-in-tracker (services/opt-in-tracker) may not depend on reqwest",
            ),
            (
                "crates/new",
                "connector-new",
                "connector-domain",
                "connector-new (crates/new) may not depend on connector-domain",
            ),
        ] {
            assert_eq!(made_up(&[(folder, name, &[dependency], &[])]), [finding]);
        }
    }

    #[test]
    fn a_service_may_not_even_test_with_another_service() {
        let tracker = ("services/opt-in-tracker", "opt-in-tracker", &[][..], &["window-timer"][..]);
        assert_eq!(
            made_up(&[tracker]),
            ["opt-in-tracker (services/opt-in-tracker) may not dev-depend on window-timer"]
        );
    }
}
