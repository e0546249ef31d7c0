//! What pages say of the tree: their links, the tests they name, the numbers of decisions. Apart from the other rules because
//! these read Markdown. What a page says in words is for its reviewers.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use super::{assert_none, root, sources};

/// Path below the root and contents of every page that somebody reads in a browser.
fn pages() -> Vec<(String, String)> {
    tracked(&["*.md"])
}

/// Path below the root and contents of the text files that git tracks and whose names fit.
fn tracked(patterns: &[&str]) -> Vec<(String, String)> {
    let output = Command::new("git").arg("ls-files").args(patterns).current_dir(root()).output();
    let listed = output.ok().filter(|output| output.status.success()).map(|output| output.stdout).unwrap_or_default();
    let names = String::from_utf8(listed).expect("names in UTF-8");
    names.lines().filter_map(|name| Some((name.to_owned(), fs::read_to_string(root().join(name)).ok()?))).collect()
}

/// The text of a page between its fenced blocks.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut is_fenced = false;
    text.lines().enumerate().filter(move |(_, line)| {
        let is_fence = line.trim_start().starts_with("```");
        is_fenced ^= is_fence;
        !is_fenced && !is_fence
    })
}

/// What follows `](` up to `)`, in each link of a line.
fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| rest.split(')').next())
}

/// The anchors that GitHub gives the headings of a page.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let headings = prose(text).filter(|(_, line)| line.starts_with('#'));
    let slugs = headings.map(|(_, line)| {
        let kept = line.trim_start_matches('#').trim().to_lowercase();
        let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect::<String>()
    });
    let numbered = slugs.map(|slug| {
        let before = seen.entry(slug.clone()).and_modify(|count| *count += 1).or_default();
        if *before == 0 { slug } else { format!("{slug}-{before}") }
    });
    numbered.collect()
}

#[test]
fn every_link_of_a_page_leads_somewhere() {
    let mut dead = Vec::new();
    for (name, text) in pages() {
        let folder = Path::new(&name).parent().unwrap_or(Path::new("")).to_owned();
        for (number, link) in prose(&text).flat_map(|(number, line)| links(line).map(move |link| (number + 1, link))) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = link.split_once('#').map_or((link, None), |(path, anchor)| (path, Some(anchor)));
            let file = if path.is_empty() { root().join(&name) } else { root().join(&folder).join(path) };
            let is_anchor = |anchor: &str| fs::read_to_string(&file).is_ok_and(|text| anchors(&text).contains(anchor));
            if !file.exists() || anchor.is_some_and(|anchor| !is_anchor(anchor)) {
                dead.push(format!("{name}:{number}: {link}"));
            }
        }
    }

    assert_none("these links lead nowhere", &dead);
}

#[test]
fn every_test_that_a_page_names_is_there() {
    let sources = sources();
    let is_there = |file: &str, name: &str| {
        sources.iter().any(|(path, text)| is_file(path, file) && text.contains(&format!("fn {name}(")))
    };
    let mut absent = Vec::new();
    for (page, text) in pages() {
        let wrong = tests_named(&text).into_iter().filter(|(_, file, name)| !is_there(file, name));
        absent.extend(wrong.map(|(number, file, name)| format!("{page}:{number}: {file}::{name}")));
    }

    assert_none("these tests are not there", &absent);
}

/// Whether `path` is the file that a page calls `file`: by its whole path or the end of it.
fn is_file(path: &str, file: &str) -> bool {
    path == file || path.ends_with(&format!("/{file}"))
}

/// Line, file and name of each test that a page names: `file.rs::name`; after it in the same cell of a table `name` alone; and
/// `…::name` for one in the file that was named last.
fn tests_named(text: &str) -> Vec<(usize, &str, &str)> {
    let mut last = None;
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        for cell in line.split('|') {
            let mut is_listing = false;
            for code in cell.split('`').skip(1).step_by(2) {
                let name = match code.split_once("::") {
                    Some((file, name)) if file.ends_with(".rs") => {
                        last = Some(file);
                        name
                    }
                    Some(("…", name)) => name,
                    None if is_listing && is_sentence(code) => code,
                    _ => continue,
                };
                is_listing = true;
                found.push((number + 1, last.unwrap_or("no file"), name));
            }
        }
    }
    found
}

/// Whether a word can only be a test's name: four words and more, as functions are written.
fn is_sentence(word: &str) -> bool {
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    word.chars().all(is_name) && word.matches('_').count() >= 3
}

#[test]
fn every_source_that_a_page_names_is_there() {
    let sources = sources();
    let mut absent = Vec::new();
    for (page, text) in pages() {
        for (number, line) in prose(&text) {
            let codes = line.split('`').skip(1).step_by(2);
            let named = codes.filter(|code| code.ends_with(".rs") && code.contains('/') && !code.contains(' '));
            // `NAME` stands for a name that a reader gives.
            let named = named.filter(|code| !code.chars().any(|c| c.is_ascii_uppercase()));
            let wrong = named.filter(|code| !sources.iter().any(|(path, _)| is_file(path, code)));
            absent.extend(wrong.map(|code| format!("{page}:{}: {code}", number + 1)));
        }
    }

    assert_none("these sources are not there", &absent);
}

#[test]
fn every_page_that_a_file_names_is_there() {
    let mut dead = Vec::new();
    for (name, text) in tracked(&["."]).into_iter().filter(|(name, _)| !name.ends_with(".md")) {
        for (number, line) in text.lines().enumerate() {
            let wrong = pages_named(line).into_iter().filter(|link| !is_page(link));
            dead.extend(wrong.map(|link| format!("{name}:{}: {link}", number + 1)));
        }
    }

    assert_none("these files name pages that are not there", &dead);
}

/// Each Markdown page below `docs/` that a line names, with the section if there is one, also at the end of a web address.
fn pages_named(line: &str) -> Vec<&str> {
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_' | '.' | '#');
    let places = line.match_indices("docs/").map(|(place, _)| &line[place..]);
    let names = places.map(|rest| rest.split(|c| !is_of_name(c)).next().unwrap_or_default().trim_end_matches('.'));
    names.filter(|name| name.ends_with(".md") || name.contains(".md#")).collect()
}

/// Whether a link from the root leads to a page and, if it names one, to a section of it.
fn is_page(link: &str) -> bool {
    let (path, anchor) = link.split_once('#').map_or((link, None), |(path, anchor)| (path, Some(anchor)));
    let text = fs::read_to_string(root().join(path));
    text.is_ok_and(|text| anchor.is_none_or(|anchor| anchors(&text).contains(anchor)))
}

#[test]
fn each_decision_has_a_number_of_its_own() {
    let decisions: Vec<(String, String)> = pages()
        .into_iter()
        .filter_map(|(name, text)| Some((name.strip_prefix("docs/adr/")?.to_owned(), text)))
        .collect();
    let mut numbers: BTreeMap<String, usize> = BTreeMap::new();
    let mut wrong = Vec::new();
    for (name, text) in &decisions {
        let number = name.split('-').next().unwrap_or_default().to_owned();
        if !text.starts_with(&format!("# {}. ", number.trim_start_matches('0'))) {
            wrong.push(format!("{name}: its title has another number"));
        }
        *numbers.entry(number).or_default() += 1;
    }
    wrong.extend(numbers.iter().filter(|(_, count)| **count > 1).map(|(number, _)| format!("{number} stands twice")));
    for (name, text) in sources() {
        let named = text.split("ADR ").skip(1).chain(text.split("docs/adr/").skip(1));
        let named = named.map(|rest| rest.chars().take_while(char::is_ascii_digit).collect::<String>());
        let unknown = named.filter(|number| !number.is_empty() && !numbers.contains_key(&format!("{number:0>4}")));
        wrong.extend(unknown.map(|number| format!("{name}: there is no decision {number}")));
    }

    assert!(decisions.len() > 20, "the decisions were not found");
    assert_none("decisions", &wrong);
}

#[test]
fn anchors_are_those_that_github_gives() {
    let page = "# One\n## SEND → SENT\n```\n# no heading\n```\n### It\n### It\n";

    assert_eq!(anchors(page), ["one", "send--sent", "it", "it-1"].map(str::to_owned).into());
    assert_eq!(links("see [a](b.md#c) and [d](e)").collect::<Vec<_>>(), ["b.md#c", "e"]);
}

#[test]
fn tests_are_found_by_file_by_neighbour_and_by_ellipsis() {
    let page = "| `a.rs::one`, `it_is_so_too` | `a_key_of_config` |\n`…::two` and `b.rs::three`, `logic::four`\n";

    let found = tests_named(page);
    assert_eq!(found, [(1, "a.rs", "one"), (1, "a.rs", "it_is_so_too"), (2, "a.rs", "two"), (2, "b.rs", "three")]);
}

#[test]
fn pages_are_found_in_comments_and_addresses() {
    let docs = |names: [&str; 3]| names.map(|name| format!("docs/{name}"));
    let [a, d, f] = docs(["a.md#b-c", "d/e.md", "f.md"]);

    let line = format!("see `{a}`, ({d}). https://x.y/{f} in docs/adr");
    assert_eq!(pages_named(&line), [a, d, f]);
}
