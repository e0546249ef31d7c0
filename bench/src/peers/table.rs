//! Rows → the report: one table, plots, and a sentence for every column in which Tidegate is not ahead.
//! Measures nothing. Invariant: a cell that was not measured is empty, never zero.

use super::Options;
use super::course::Row;
use crate::report::{Better, Column, Line, Plot, Record, Report, Table, cell_text};

/// A column: its heading, unit, which way is better, and where its figure is.
struct Measure {
    name: &'static str,
    unit: &'static str,
    better: Better,
    of: fn(&Row) -> Option<f64>,
}

const MEASURES: [Measure; 7] = [
    Measure { name: "memory a connection", unit: "B", better: Better::Less, of: |row| row.bytes_per_connection },
    Measure { name: "CPU a delivery", unit: "µs", better: Better::Less, of: |row| row.cpu_us_per_delivery },
    Measure { name: "deliveries", unit: "/s", better: Better::More, of: |row| row.deliveries_per_s },
    Measure { name: "p50", unit: "ms", better: Better::Less, of: |row| quantile_ms(row, 0.5) },
    Measure { name: "p99", unit: "ms", better: Better::Less, of: |row| quantile_ms(row, 0.99) },
    Measure { name: "max", unit: "ms", better: Better::Less, of: |row| quantile_ms(row, 1.0).or(row.received_ms) },
    Measure { name: "connects", unit: "/s", better: Better::More, of: |row| row.handshakes_per_s },
];
/// Us, and what is no server and so competes in nothing.
const OURS: &str = "tidegate";
const LIMIT: &str = "bare loop";

fn quantile_ms(row: &Row, quantile: f64) -> Option<f64> {
    (row.latency_us.count() > 0).then(|| row.latency_us.quantile(quantile) as f64 / 1e3)
}

/// Puts the rows into the report.
pub(super) fn fill(options: &Options, rows: &[Row], report: &mut Report) {
    let columns = MEASURES.iter().map(|measure| Column {
        name: measure.name.to_owned(),
        unit: measure.unit.to_owned(),
        better: Some(measure.better),
    });
    let records = rows.iter().map(|row| Record {
        name: row.name.clone(),
        is_ours: row.name == OURS,
        is_reference: row.name == LIMIT,
        cells: MEASURES.iter().map(|measure| (measure.of)(row)).collect(),
        note: note(row),
    });
    let Options { connections, size, rate, .. } = options;
    report.tables.push(Table {
        title: format!("Side by side: {connections} clients, {size} B a message"),
        columns: columns.collect(),
        rows: records.collect(),
        notes: notes(options),
    });
    report.remarks.extend(behind(rows));
    plots(rows, *rate, report);
}

fn note(row: &Row) -> String {
    let best =
        row.climb.iter().filter(|step| step.is_whole).max_by(|a, b| a.deliveries_per_s.total_cmp(&b.deliveries_per_s));
    let merged = best.filter(|step| step.per_frame > 1.05);
    let merged = merged.map(|step| format!("; at the most, {} messages a frame", cell_text(step.per_frame)));
    let processes = if row.processes == 1 { "1 process".to_owned() } else { format!("{} processes", row.processes) };
    format!("{}, {processes}{}", row.version, merged.unwrap_or_default())
}

/// What the columns mean, below the table.
fn notes(options: &Options) -> Vec<String> {
    let Options { connections, size, rate, .. } = options;
    let few = connections / 5;
    vec![
        format!(
            "memory a connection: user space of all the server's processes at rest, slope from {few} to {connections} \
             idle subscribers, shared pages counted once; the kernel's part is the same for all and not in it; \
             empty where the server shrank meanwhile: more clients tell more"
        ),
        format!(
            "CPU a delivery: user and system time of all the server's processes while {rate} messages a second of \
             {size} B go to every client, over messages received; on loopback it holds the receiver's half of TCP"
        ),
        "deliveries: the rate of messages doubles until p99 passes one second or something is missing; the most that \
         arrived whole, from the first message's due time to the last client's last"
            .to_owned(),
        "p50, p99, max: from when a message was due to when a client had read it, at one client in four, at the rate \
         of the CPU column; bare loop: when the last client had it"
            .to_owned(),
        "connects: full handshakes to the 101, then reset, 512 in flight, the client on the same machine; no \
         subscription in it"
            .to_owned(),
    ]
}

/// One sentence for each column in which a peer is ahead of Tidegate, or that Tidegate leads wherever it has a figure.
fn behind(rows: &[Row]) -> Vec<String> {
    let Some(ours) = rows.iter().find(|row| row.name == OURS) else { return Vec::new() };
    let peers = || rows.iter().filter(|row| row.name != OURS && row.name != LIMIT);
    if peers().next().is_none() {
        return Vec::new();
    }
    let mut sentences = Vec::new();
    for Measure { name, unit, better, of } in &MEASURES {
        let Some(own) = of(ours) else { continue };
        let ahead: Vec<String> = peers()
            .filter_map(|row| Some((row, of(row)?)))
            .filter(|(_, value)| better.prefers(*value, own))
            .map(|(row, value)| format!("{} {} {unit}", row.name, cell_text(value)))
            .collect();
        if !ahead.is_empty() {
            sentences.push(format!("NOT AHEAD in {name}: tidegate {} {unit}, {}", cell_text(own), ahead.join(", ")));
        }
    }
    if sentences.is_empty() {
        sentences.push("tidegate is ahead of every peer in every column it has a figure in".to_owned());
    }
    sentences
}

fn plots(rows: &[Row], rate: f64, report: &mut Report) {
    let lines = |points: fn(&Row) -> Vec<(f64, f64)>| -> Vec<Line> {
        let line = |row: &Row| Line { name: row.name.clone(), points: points(row) };
        rows.iter().map(line).filter(|line| !line.points.is_empty()).collect()
    };
    let plot = |title: &str, x: &str, y: &str, lines: Vec<Line>| Plot {
        title: title.to_owned(),
        x: x.to_owned(),
        y: y.to_owned(),
        lines,
    };
    let memory = lines(|row| row.memory.iter().map(|(count, bytes)| (*count as f64, *bytes as f64 / 1e6)).collect());
    let climb = lines(|row| row.climb.iter().map(|step| (step.rate, step.p99_us as f64 / 1e3)).collect());
    let taken = lines(|row| row.climb.iter().map(|step| (step.rate, step.deliveries_per_s)).collect());
    let seconds = lines(|row| row.by_second.iter().enumerate().map(|(s, count)| (s as f64, *count as f64)).collect());
    report.plots.push(plot("Memory of the server", "connections", "MB", memory));
    report.plots.push(plot("Climb: deliveries", "messages a second to everyone", "deliveries/s", taken));
    report.plots.push(plot("Climb: p99 latency", "messages a second to everyone", "ms", climb));
    report.plots.push(plot(
        &format!("Deliveries in each second at {rate} messages a second"),
        "s",
        "deliveries",
        seconds,
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, cpu: f64, connects: f64) -> Row {
        let (cpu_us_per_delivery, handshakes_per_s) = (Some(cpu), Some(connects));
        Row { name: name.to_owned(), cpu_us_per_delivery, handshakes_per_s, ..Row::default() }
    }

    #[test]
    fn a_column_in_which_a_peer_is_ahead_is_said_with_both_figures() {
        let rows = [row("bare loop", 0.1, 9e9), row("tidegate", 4.0, 30_000.0), row("nchan", 5.0, 31_000.0)];

        let sentences = behind(&rows);

        assert_eq!(sentences, ["NOT AHEAD in connects: tidegate 30,000 /s, nchan 31,000 /s"]);
    }

    #[test]
    fn leading_everywhere_is_said_only_beside_a_peer() {
        assert_eq!(behind(&[row("tidegate", 4.0, 1.0), row("bare loop", 0.1, 2.0)]), Vec::<String>::new());
        assert_eq!(behind(&[row("tidegate", 4.0, 2.0), row("ws", 5.0, 1.0)]).len(), 1);
    }

    #[test]
    fn a_cell_that_was_not_measured_is_empty() {
        let cells: Vec<_> = MEASURES.iter().map(|measure| (measure.of)(&row("bare loop", 3.0, 1.0))).collect();

        assert_eq!(cells, [None, Some(3.0), None, None, None, None, Some(1.0)]);
    }
}
