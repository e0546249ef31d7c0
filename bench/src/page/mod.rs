//! `bench report`: any JSON of the harness → one HTML page that needs no network.
//! This file is the command line and the page's frame: head, scripts, policy. `read` takes the files, `section` writes
//! one report, `figure` plots and bars, `html` escapes. What plots is `bench/assets/report/report.js` on uPlot.
//! Invariants: whatever stands in a JSON file is text on the page, never markup or script (the policy names the hashes
//! of the scripts that may run); without scripts the page still holds every figure.

mod figure;
mod html;
mod read;
mod section;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest as _, Sha256};

use crate::ending;
use crate::report::Report;
use figure::Figures;
use html::Html;

const UPLOT: &str = include_str!("../../assets/uplot/uPlot.iife.min.js");
const UPLOT_STYLE: &str = include_str!("../../assets/uplot/uPlot.min.css");
const UPLOT_LICENSE: &str = include_str!("../../assets/uplot/LICENSE");
const SCRIPT: &str = include_str!("../../assets/report/report.js");
const STYLE: &str = include_str!("../../assets/report/report.css");

#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// What `--json FILE` or `--json-lines` of any bench command wrote.
    #[arg(required = true, value_name = "FILE.json")]
    pub files: Vec<PathBuf>,
    /// Where the page goes.
    #[arg(long, value_name = "FILE.html", default_value = "report.html")]
    pub out: PathBuf,
    /// Heading of the page; by default the names of the scenarios.
    #[arg(long)]
    pub title: Option<String>,
}

pub fn main(options: &Options) -> anyhow::Result<ExitCode> {
    let mut reports = Vec::new();
    for path in &options.files {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        reports.extend(read::reports(&text).with_context(|| format!("{}", path.display()))?);
    }
    let title = options.title.clone().unwrap_or_else(|| title(&reports));
    let page = page(&title, &reports);
    std::fs::write(&options.out, &page).with_context(|| format!("cannot write {}", options.out.display()))?;
    let sections = if reports.len() == 1 { "1 report".to_owned() } else { format!("{} reports", reports.len()) };
    ending::answer(&format!("{}: {sections}, {} kB", options.out.display(), page.len() / 1_000))?;
    Ok(ExitCode::SUCCESS)
}

fn title(reports: &[Report]) -> String {
    let mut names: Vec<&str> = reports.iter().map(|report| report.scenario.as_str()).collect();
    names.dedup();
    format!("Tidegate bench: {}", names.join(", "))
}

/// The whole page.
pub fn page(title: &str, reports: &[Report]) -> String {
    let mut figures = Figures::default();
    let mut body = Html::default();
    section::masthead(title, reports, &mut body);
    for (number, report) in reports.iter().enumerate() {
        section::report(number, report, &mut figures, &mut body);
    }
    section::footer(UPLOT_LICENSE, &mut body);
    let policy = format!(
        "default-src 'none'; style-src 'unsafe-inline'; script-src {} {}; base-uri 'none'; form-action 'none'",
        hash(UPLOT),
        hash(SCRIPT)
    );
    let mut page = Html::default();
    page.raw("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n")
        .raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n")
        .raw("<meta name=\"color-scheme\" content=\"light dark\">\n")
        .raw("<meta http-equiv=\"Content-Security-Policy\" content=\"")
        .text(&policy)
        .raw("\">\n<title>")
        .text(title)
        .raw("</title>\n<style>")
        .raw(UPLOT_STYLE)
        .raw("</style>\n<style>")
        .raw(STYLE)
        .raw("</style>\n</head>\n<body>\n")
        .raw(body.as_str())
        .raw("<script type=\"application/json\" id=\"plots\">")
        .raw(&html::script_data(&figures.plots))
        .raw("</script>\n<script>")
        .raw(UPLOT)
        .raw("</script>\n<script>")
        .raw(SCRIPT)
        .raw("</script>\n</body>\n</html>\n");
    page.into_string()
}

/// A script's source in a content security policy.
fn hash(script: &str) -> String {
    format!("'sha256-{}'", BASE64_STANDARD.encode(Sha256::digest(script.as_bytes())))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
