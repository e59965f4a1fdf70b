//! Pages about the settings: the reference, what is in effect now, and likely typing errors.

use std::fmt::Write as _;

use crate::secret::REDACTED;
use crate::source::Source;
use crate::variable::{Group, Kind, Variable};

/// The reference page of all settings, in Markdown: one section and table for each group. Ends with one line end.
pub fn render_reference(groups: &[Group]) -> String {
    let mut page = String::from(
        "# Configuration\n\n\
         Every process reads its settings from environment variables. Empty counts as not set. A process that finds a problem\n\
         does not start and lists every problem it found.\n\n\
         A variable marked *secret* may also be given as `<NAME>_FILE`, the path of a file that holds the value; setting both is\n\
         a problem. Durations are a number and a unit: `250ms`, `20s`, `5m`, `24h`, `7d`.\n\n\
         This page is generated from the declarations in the code.\n",
    );
    for group in groups {
        let users = if group.used_by.is_empty() {
            "every service".to_owned()
        } else {
            group.used_by.iter().map(|service| format!("`{service}`")).collect::<Vec<_>>().join(", ")
        };
        // Writing into a String cannot fail.
        let _ = write!(
            page,
            "\n## {}\n\n{}\n\nUsed by: {users}.\n\n| Variable | Default | Secret | Meaning |\n|---|---|---|---|\n",
            group.title,
            group.doc.trim()
        );
        for variable in group.variables {
            let _ = writeln!(
                page,
                "| `{}` | {} | {} | {} |",
                variable.name,
                default_cell(variable),
                if variable.secret { "yes" } else { "no" },
                meaning_cell(variable)
            );
        }
    }
    page
}

fn default_cell(variable: &Variable) -> String {
    match variable.default {
        Some(_) if variable.secret => REDACTED.to_owned(),
        Some(value) => format!("`{value}`"),
        None if variable.required => "**required**".to_owned(),
        None => "not set".to_owned(),
    }
}

fn meaning_cell(variable: &Variable) -> String {
    let words = variable.doc.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|");
    match variable.kind {
        Kind::Choice(options) => {
            let options = options.iter().map(|option| format!("`{option}`")).collect::<Vec<_>>().join(", ");
            format!("{words} One of {options}.")
        }
        _ => words,
    }
}

/// What is in effect now, one `NAME=value` line for each variable that has a value, in the order of the groups, each name
/// once. Secrets and URLs (which may hold a password) show as `[redacted]`.
pub fn render_effective(groups: &[Group], source: &dyn Source) -> String {
    let mut page = String::new();
    let mut shown = std::collections::HashSet::new();
    for variable in groups.iter().flat_map(|group| group.variables) {
        if !shown.insert(variable.name) {
            continue;
        }
        let set = |name: &str| source.get(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        if let Some(prefix) = variable.family() {
            let mut members: Vec<_> = source.names().into_iter().filter(|name| name.starts_with(prefix)).collect();
            members.sort();
            // What a family passes through is not known here; a password could be among it.
            members.iter().for_each(|name| page.push_str(&format!("{name}={REDACTED}\n")));
        } else if let Some(path) = variable.secret.then(|| set(&variable.file_name())).flatten() {
            page.push_str(&format!("{}={path}\n", variable.file_name()));
        } else if let Some(value) = set(variable.name) {
            let hidden = variable.secret || variable.kind == Kind::Url;
            page.push_str(&format!("{}={}\n", variable.name, if hidden { REDACTED } else { &value }));
        } else if let Some(value) = variable.default {
            let value = if variable.secret { REDACTED } else { value };
            page.push_str(&format!("{}={value}  # default\n", variable.name));
        }
    }
    page
}

/// Variables of the source that nobody declared and whose name is one or two letters away from one that was: pairs of
/// (found, probably meant), sorted. Worth a warning at start. A prefix alone says nothing: Kubernetes itself adds
/// `REDIS_PORT` and the like for every service it knows.
pub fn likely_typos(groups: &[Group], source: &dyn Source) -> Vec<(String, String)> {
    let variables = || groups.iter().flat_map(|group| group.variables);
    let mut known: Vec<String> = variables().filter(|v| v.family().is_none()).map(|v| v.name.to_owned()).collect();
    known.extend(variables().filter(|v| v.secret).map(Variable::file_name));
    let families: Vec<&str> = variables().filter_map(Variable::family).collect();
    let mut typos: Vec<_> = (source.names().into_iter())
        .filter(|name| name.len() >= 8 && !known.contains(name))
        .filter(|name| !families.iter().any(|family| name.starts_with(family)))
        .filter_map(|name| {
            let meant = known.iter().min_by_key(|known| distance(&name, known))?;
            (distance(&name, meant) <= 2).then(|| (name.clone(), meant.clone()))
        })
        .collect();
    typos.sort();
    typos
}

/// How many letters must be added, removed or exchanged to make one text from the other (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, right) in b.bytes().enumerate() {
            let exchanged = diagonal + usize::from(left != right);
            diagonal = row[j + 1];
            row[j + 1] = exchanged.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUPS: &[Group] = &[Group {
        title: "Redis",
        doc: "The gate.",
        used_by: &["outbound-sender", "window-timer"],
        variables: &[
            Variable::required("REDIS_URL", Kind::Url, "Where Redis is.").secret(),
            Variable::with_default("REDIS_TIMEOUT", Kind::Duration, "2s", "How long one call\nmay take."),
            Variable::with_default("REDIS_MODE", Kind::Choice(&["single", "cluster"]), "single", "How it is run."),
            Variable::optional("REDIS_PROP_*", Kind::Text, "Anything | else."),
        ],
    }];

    #[test]
    fn the_reference_shows_every_variable_with_default_and_meaning() {
        let page = render_reference(GROUPS);
        let table: Vec<_> = page.lines().skip_while(|line| !line.starts_with("## ")).collect();
        assert_eq!(
            table,
            [
                "## Redis",
                "",
                "The gate.",
                "",
                "Used by: `outbound-sender`, `window-timer`.",
                "",
                "| Variable | Default | Secret | Meaning |",
                "|---|---|---|---|",
                "| `REDIS_URL` | **required** | yes | Where Redis is. |",
                "| `REDIS_TIMEOUT` | `2s` | no | How long one call may take. |",
                "| `REDIS_MODE` | `single` | no | How it is run. One of `single`, `cluster`. |",
                "| `REDIS_PROP_*` | not set | no | Anything \\| else. |",
            ]
        );
    }

    #[test]
    fn what_is_in_effect_is_shown_without_secrets() {
        let source = [("REDIS_URL", "redis://:hunter2@redis"), ("REDIS_MODE", "cluster"), ("REDIS_PROP_x", "hunter2")];
        assert_eq!(
            render_effective(GROUPS, &source),
            "REDIS_URL=[redacted]\nREDIS_TIMEOUT=2s  # default\nREDIS_MODE=cluster\nREDIS_PROP_x=[redacted]\n"
        );
        assert!(render_effective(GROUPS, &[("REDIS_URL_FILE", "/run/redis")]).contains("REDIS_URL_FILE=/run/redis\n"));
    }

    #[test]
    fn a_typing_error_is_noticed_and_other_peoples_variables_are_not() {
        let source = [
            ("REDIS_TIMEUOT", "2s"),
            ("REDIS_TIMEOUT", "2s"),
            ("REDIS_URL_FILE", "x"),
            ("REDIS_PROP_TIMEOUT", "x"),
            ("REDIS_SERVICE_HOST", "10.0.0.1"),
            ("HOME", "here"),
        ];
        assert_eq!(likely_typos(GROUPS, &source), [("REDIS_TIMEUOT".to_owned(), "REDIS_TIMEOUT".to_owned())]);
    }
}
