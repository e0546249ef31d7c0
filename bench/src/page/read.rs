//! Files → reports: the report of a scenario as it is, and what `limit`, `swarm` and `publish` print as a report of it.
//! A file of its own because only this knows how the other commands' JSON looks. One file may hold several documents.

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use crate::limit::{Limit, Passes};
use crate::publish::Published;
use crate::report::{Line, Plot, Report, SCHEMA};
use crate::swarm::churn::Churned;
use crate::swarm::quiet::Quieted;
use crate::swarm::tally::Tally;

/// Every document of a file.
pub fn reports(text: &str) -> anyhow::Result<Vec<Report>> {
    let documents = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let reports: Vec<Report> = documents.map(|value| report(value.context("not JSON")?)).collect::<Result<_, _>>()?;
    ensure!(!reports.is_empty(), "nothing in it");
    Ok(reports)
}

fn report(value: Value) -> anyhow::Result<Report> {
    let has = |key: &str| value.get(key).is_some();
    if let Some(schema) = value.get("schema") {
        ensure!(schema == SCHEMA, "schema {schema} is not {SCHEMA}");
        return serde_json::from_value(value).context("not a report");
    }
    Ok(if has("client_us_per_receive") {
        limit(serde_json::from_value(value)?)
    } else if has("standing") {
        tally(&serde_json::from_value(value)?)
    } else if has("receipt_us") {
        published(&serde_json::from_value(value)?)
    } else if has("per_second") {
        churned(&serde_json::from_value(value)?)
    } else if has("lived_us") {
        quieted(&serde_json::from_value(value)?)
    } else {
        bail!("neither a report nor the JSON of limit, swarm or publish")
    })
}

/// A report of another command: judged there already, measured on a machine that the JSON does not name.
fn blank(scenario: &str) -> Report {
    let (sound, targets_met) = (true, true);
    Report { schema: SCHEMA.into(), scenario: scenario.into(), sound, targets_met, ..Report::default() }
}

fn limit(limit: Limit) -> Report {
    let mut report = Report { machine: limit.machine, ..blank("bare loop") };
    report.figure("sockets", limit.connections as f64, "");
    report.figure("bytes a send", limit.frame_bytes as f64, "B");
    report.figure("client CPU a message", limit.client_us_per_receive, "µs");
    for (name, passes) in [("paced", limit.paced), ("back to back", limit.back_to_back)] {
        let Some(Passes { cpu_us_per_send, sent_ms, received_ms, .. }) = passes else { continue };
        for (what, unit, values) in [
            ("CPU a send", "µs", &cpu_us_per_send),
            ("first to last send", "ms", &sent_ms),
            ("last client has it", "ms", &received_ms),
        ] {
            let median = crate::distribution::exact_quantile(values, 0.5);
            report.figure(&format!("{what}, {name}, median"), median, unit);
        }
        let lines = [("last send", sent_ms), ("last client has it", received_ms)];
        let line = |(name, values): (&str, Vec<f64>)| Line {
            name: name.to_owned(),
            points: values.into_iter().enumerate().map(|(pass, ms)| (pass as f64, ms)).collect(),
        };
        report.plots.push(Plot {
            title: format!("Passes, {name}"),
            x: "pass".to_owned(),
            y: "ms from the first send".to_owned(),
            lines: lines.into_iter().map(line).collect(),
        });
    }
    report
}

fn tally(tally: &Tally) -> Report {
    let mut report = blank("swarm");
    if tally.standing.faults() > 0 {
        report.fault(crate::report::loss_line(&tally.standing));
        report.sound = false;
    }
    report.figure("clients open", tally.open as f64, "");
    report.figure("clients failed", tally.failed as f64, "");
    report.figure("ramp", tally.ramp_s, "s");
    report.figure("messages", tally.messages as f64, "");
    report.figure("frames", tally.frames as f64, "");
    report.figure("bytes", tally.bytes as f64, "B");
    report.latency("intended → read", &tally.latency_us);
    report.latency("handshake", &tally.handshake_us);
    report.by_second("deliveries", &tally.seconds());
    report
}

fn published(published: &Published) -> Report {
    let mut report = blank("publish");
    report.figure("messages", published.messages as f64, "");
    report.figure("pushes", published.pushes as f64, "");
    report.figure("accepted", published.accepted as f64, "");
    report.figure("unanswered", published.unanswered as f64, "");
    report.figure("refused", published.refused.values().sum::<u64>() as f64, "");
    report.latency("receipt", &published.receipt_us);
    report.latency("late", &published.late_us);
    report.seconds = published.seconds;
    report
}

fn churned(churned: &Churned) -> Report {
    let mut report = Report { seconds: churned.seconds, ..blank("handshakes") };
    report.figure("handshakes", churned.handshakes as f64, "");
    report.figure("handshakes a second", churned.per_second, "/s");
    report.figure("handshakes in the slowest second", churned.sustained(), "/s");
    report.latency("handshake", &churned.handshake_us);
    report.by_second("handshakes", &churned.by_second);
    report
}

fn quieted(quieted: &Quieted) -> Report {
    let mut report = blank("quiet sockets");
    report.figure("sockets", quieted.sockets as f64, "");
    report.figure("still open", quieted.still_open as f64, "");
    report.latency("life of a socket", &quieted.lived_us);
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_each_command_prints_is_recognized() {
        let lines = [
            serde_json::to_string(&Limit { paced: Some(Passes::default()), ..Limit::default() }),
            serde_json::to_string(&Tally::default()),
            serde_json::to_string(&Published::default()),
            serde_json::to_string(&Churned::default()),
            serde_json::to_string(&Quieted::default()),
            serde_json::to_string(&Report::new("idle")),
        ];
        let text = lines.map(|line| line.expect("serializes")).join("\n");

        let scenarios: Vec<String> = reports(&text).expect("reads").into_iter().map(|report| report.scenario).collect();

        assert_eq!(scenarios, ["bare loop", "swarm", "publish", "handshakes", "quiet sockets", "idle"]);
    }

    #[test]
    fn a_report_of_before_tables_and_plots_still_reads() {
        let mut value = serde_json::to_value(Report::new("idle")).expect("serializes");
        let object = value.as_object_mut().expect("an object");
        ["tables", "plots", "remarks", "skipped"].iter().for_each(|key| drop(object.remove(*key)));

        assert_eq!(reports(&value.to_string()).expect("reads").len(), 1);
    }

    #[test]
    fn what_is_no_result_is_refused_and_says_so() {
        for (text, why) in [("", "nothing"), ("{}", "neither"), (r#"{"schema":"x/9"}"#, "x/9"), ("{", "not JSON")] {
            let error = format!("{:#}", reports(text).expect_err(text));
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
