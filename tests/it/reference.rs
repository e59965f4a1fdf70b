//! The generated pages say what the code says. `make docs` writes them anew.

use std::path::Path;

use connector_telemetry::Metrics;
use connector_tests::root;

fn same(page: &Path, text: &str) {
    if std::env::var_os("WRITE_REFERENCE").is_some() {
        std::fs::write(page, text).expect("the page can be written");
        return;
    }
    let written = std::fs::read_to_string(page).unwrap_or_default();
    assert!(written == text, "{} is not what the code says: run `make docs`", page.display());
}

#[test]
fn the_reference_page_names_every_setting() {
    same(&root().join("docs/reference/configuration.md"), &connector_host::reference::page(connector::GROUPS));
}

#[test]
fn the_reference_page_names_every_metric() {
    same(&root().join("docs/reference/metrics.md"), &Metrics::new("0", "unknown").render_reference());
}

#[test]
fn the_alert_rules_are_the_ones_that_the_metrics_ask_for() {
    let rules = Metrics::new("0", "unknown").render_alerts();
    assert!(rules.contains("expr: 'connector_outbound_blocked_journals > 0'"), "{rules}");
    same(&root().join("deploy/prometheus/alerts.yaml"), &rules);
}
