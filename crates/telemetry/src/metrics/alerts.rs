//! The alerts that the declarations of metrics ask for, as rules of Prometheus.

use super::registrar::{Alert, Description};

/// When somebody is told, in the words of the reference page.
pub(super) fn words(alert: Alert) -> String {
    match alert {
        Alert::Any => "Alert on any".to_owned(),
        Alert::AnyOf(_, values) => {
            let values: Vec<String> = values.iter().map(|value| format!("`{value}`")).collect();
            format!("Alert on {}", values.join(" and "))
        }
        Alert::Above(limit) => format!("Alert above {limit} for five minutes"),
    }
}

/// A counter with labels begins to exist with its first event, which `increase` alone does not see.
fn counted(selector: &str) -> String {
    format!("increase({selector}[15m]) > 0 or ({selector} unless {selector} offset 15m) > 0")
}

fn expression(description: &Description, alert: Alert) -> String {
    let selector = match alert {
        Alert::AnyOf(label, values) => format!("{}{{{label}=~\"{}\"}}", description.name, values.join("|")),
        Alert::Any | Alert::Above(_) => description.name.clone(),
    };
    match alert {
        Alert::Above(limit) => format!("{selector} > {limit}"),
        Alert::Any | Alert::AnyOf(..) if description.kind == "counter" => counted(&selector),
        Alert::Any | Alert::AnyOf(..) => format!("{selector} > 0"),
    }
}

/// `connector_outbound_blocked_journals` becomes `ConnectorOutboundBlockedJournals`.
fn title(metric: &str) -> String {
    let words = metric.trim_end_matches("_total").trim_end_matches("_seconds").split('_');
    words.map(|word| word[..1].to_uppercase() + &word[1..]).collect()
}

/// The file of rules.
pub(super) fn render(inventory: &[Description]) -> String {
    let mut file = String::from(
        "# What a person has to look at. Generated from the declarations in the code: `make docs`.\n\
         groups:\n  - name: multiline-connector\n    rules:\n",
    );
    for description in inventory {
        let Some(alert) = description.alert else { continue };
        let patience = match alert {
            Alert::Above(_) => "5m",
            Alert::Any | Alert::AnyOf(..) => "0s",
        };
        let expression = expression(description, alert);
        file.push_str(&format!(
            "      - alert: {}\n        expr: '{expression}'\n        for: {patience}\n        labels:\n          \
             severity: warning\n        annotations:\n          summary: '{}'\n          runbook: docs/operations.md\n",
            title(&description.name),
            description.help.replace('\'', "''"),
        ));
    }
    file
}
