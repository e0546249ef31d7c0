//! A rolling restart of three gateways under load, small: the scenario that `tidegate bench run rolling` runs with 6,000
//! clients, with 300. What it judges: nothing lost or doubled while a connection is open, nobody let in faster than the
//! budget, no push answered 5xx, everybody back (issue 3, point 7; rule E-4).

use std::process::Command;

use serde_json::Value;

fn figure(report: &Value, name: &str) -> f64 {
    let figures = report["figures"].as_array().expect("a report has figures");
    let found = figures.iter().find(|figure| figure["name"] == name);
    found.and_then(|figure| figure["value"].as_f64()).unwrap_or_else(|| panic!("no figure {name}: {figures:?}"))
}

/// Rule E-4: clients that heed GOAWAY and clients that wait for the close come back alike.
#[test]
fn a_rolling_restart_loses_nothing_and_keeps_the_budget() {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let json = folder.path().join("rolling.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(["bench", "run", "rolling", "--connections", "300", "--duration", "40s", "--strict", "--json"]);
    let output = command.arg(&json).output().expect("the binary was built");

    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}\n{said}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&std::fs::read(&json).expect("the report was written")).expect("JSON");
    assert_eq!(figure(&report, "messages lost or doubled while open"), 0.0);
    assert_eq!(figure(&report, "pushes answered 5xx"), 0.0);
    let ended = figure(&report, "connections ended: 3000") + figure(&report, "connections ended: heeded GOAWAY");
    assert!(ended >= 300.0, "each client was moved at least once: {ended}");
    assert!(figure(&report, "connections ended: heeded GOAWAY") > 0.0, "some go by themselves");
    let peak = figure(&report, "most let in within a second, by one gateway");
    // A tenth of a second's burst on top of the rate.
    assert!((10.0..=165.0).contains(&peak), "{peak} a second at a budget of 150");
    // Drains held back by what the others can take, not by the half second that they may take at the least.
    let slowest = report["figures"].as_array().expect("figures").iter();
    let slowest = slowest.filter(|f| f["name"] == "  time it took to leave").filter_map(|f| f["value"].as_f64());
    assert!(slowest.fold(0.0, f64::max) > 0.8, "the fleet's spare rate sets the pace");
}
