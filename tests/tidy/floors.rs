//! Floors: the modules of each crate, and a test that every arrow between them goes down. Its own file beside `tidy.rs`, because the
//! lists in `arrows.rs` are what a reader looks for, and this is only how they are held.
//! An arrow is a path from one top-level module of a crate to another (`crate::name`, or `super::name` that leads there), outside of
//! tests. The root (`lib.rs`, `main.rs`) may name every module, and no module may name what the root only re-exports.

use std::collections::{BTreeMap, BTreeSet};

use super::arrows::CRATES;
use super::{assert_none, sources};

/// A module, and the modules of its crate that it may use.
pub type Floor = (&'static str, &'static [&'static str]);

/// The modules of one crate.
pub struct Crate {
    /// Folder of its sources.
    pub folder: &'static str,
    /// Every module directly in the folder, from the lowest floor up.
    pub floors: &'static [Floor],
}

/// Modules, each with the modules that it uses and the file of the first such use.
type Arrows = BTreeMap<String, BTreeMap<String, String>>;

impl Crate {
    /// What is wrong with the crate's list and with its arrows.
    fn problems(&self, sources: &[(String, String)]) -> Vec<String> {
        let files: Vec<(&str, &str)> = sources
            .iter()
            .filter_map(|(name, text)| Some((name.strip_prefix(self.folder)?.strip_prefix('/')?, text.as_str())))
            .collect();
        let modules: BTreeSet<&str> = files.iter().filter_map(|(name, _)| module_of(name)).collect();
        let arrows = arrows(&files, &modules);
        let mut wrong = self.problems_of_list(&modules);
        wrong.extend(self.problems_of_arrows(&arrows));
        wrong.extend(self.leftovers(&arrows));
        let roots = files.iter().filter(|(name, _)| module_of(name).is_none());
        let exported: BTreeSet<&str> = roots.flat_map(|(_, text)| re_exported(text)).collect();
        for (name, text) in files.iter().filter(|(name, _)| module_of(name).is_some()) {
            let hidden = names_at_root(name, &product_of(text)).into_iter().filter(|it| exported.contains(it.as_str()));
            wrong.extend(hidden.map(|it| format!("{name}: crate::{it} hides where it comes from")));
        }
        wrong.iter().map(|problem| format!("{}: {problem}", self.folder)).collect()
    }

    /// Each module stands in the list once, and names only modules above it: then there is no circle.
    fn problems_of_list(&self, modules: &BTreeSet<&str>) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut above = BTreeSet::new();
        for (module, allowed) in self.floors {
            let up = allowed.iter().filter(|to| !above.contains(*to));
            wrong.extend(up.map(|to| format!("{module} lists {to}, which does not stand above it")));
            if !modules.contains(module) {
                wrong.push(format!("{module} is listed and not there"));
            }
            if !above.insert(module) {
                wrong.push(format!("{module} is listed twice"));
            }
        }
        wrong.extend(modules.iter().filter(|it| !above.contains(*it)).map(|it| format!("{it} is not listed")));
        wrong
    }

    fn problems_of_arrows(&self, arrows: &Arrows) -> Vec<String> {
        let mut wrong = Vec::new();
        for (from, targets) in arrows {
            let allowed = self.floors.iter().find(|(module, _)| module == from).map_or(&[][..], |(_, allowed)| allowed);
            let bad = targets.iter().filter(|(to, _)| !allowed.contains(&to.as_str()));
            wrong.extend(bad.map(|(to, file)| format!("{from} uses {to} ({file})")));
        }
        wrong
    }

    /// What the lists allow and nothing uses.
    fn leftovers(&self, arrows: &Arrows) -> Vec<String> {
        let is_used = |from: &str, to: &str| arrows.get(from).is_some_and(|targets| targets.contains_key(to));
        let listed = self.floors.iter().flat_map(|(from, allowed)| allowed.iter().map(move |to| (from, to)));
        let unused = listed.filter(|(from, to)| !is_used(from, to));
        unused.map(|(from, to)| format!("{from} → {to} is unused: take it off the list")).collect()
    }
}

/// The module directly in the folder to which a file belongs; none for the root itself and for files of tests.
fn module_of(file: &str) -> Option<&str> {
    let module = file.split('/').next().unwrap_or(file);
    let module = module.strip_suffix(".rs").unwrap_or(module);
    (!matches!(module, "lib" | "main" | "bin") && !file.ends_with("tests.rs")).then_some(module)
}

/// How many modules a file lies under the root: 1 for `name.rs` and `name/mod.rs`.
fn depth_of(file: &str) -> usize {
    let parts = file.split('/').count();
    if file.ends_with("/mod.rs") { parts - 1 } else { parts }
}

fn arrows(files: &[(&str, &str)], modules: &BTreeSet<&str>) -> Arrows {
    let mut arrows = Arrows::new();
    for (file, text) in files {
        let Some(from) = module_of(file) else { continue };
        let targets = arrows.entry(from.to_owned()).or_default();
        let named = names_at_root(file, &product_of(text)).into_iter();
        for to in named.filter(|to| to != from && modules.contains(to.as_str())) {
            targets.entry(to).or_insert_with(|| (*file).to_owned());
        }
    }
    arrows
}

/// The text without comments and without what is there for tests only.
fn product_of(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
    let text = lines.join("\n");
    let mut parts = text.split("#[cfg(test)]");
    let first = parts.next().unwrap_or_default();
    std::iter::once(first).chain(parts.map(after_item)).collect()
}

/// What follows the first item of a text: a statement up to its semicolon, or a block up to its brace.
fn after_item(text: &str) -> &str {
    let mut depth = 0_usize;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 && matches!(byte, b';' | b'}') {
            return &text[at + 1..];
        }
    }
    ""
}

/// Names that a file takes from the root of its crate, by `crate::` or by as many `super::` as lead there.
fn names_at_root(file: &str, text: &str) -> BTreeSet<String> {
    let up = "super::".repeat(depth_of(file));
    let by_crate = text.match_indices("crate::").map(|(at, prefix)| (at, at + prefix.len()));
    let by_super = text.match_indices(up.as_str()).map(|(at, prefix)| (at, at + prefix.len()));
    let is_start = |at: usize| !text[..at].ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | ':'));
    by_crate.chain(by_super).filter(|(at, _)| is_start(*at)).flat_map(|(_, end)| names(&text[end..])).collect()
}

/// The name that a path goes on with, or the names where it goes on with several in braces.
fn names(path: &str) -> Vec<String> {
    let Some(group) = path.strip_prefix('{') else { return Vec::from([word(path)]) };
    let mut depth = 0_usize;
    let mut parts = vec![String::new()];
    for c in group.chars() {
        match c {
            '}' if depth == 0 => break,
            ',' if depth == 0 => parts.push(String::new()),
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => parts.last_mut().expect("there is one").push(c),
        }
    }
    parts.iter().map(|part| word(part.trim())).collect()
}

fn word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// Every word of the root's `pub use` lines.
fn re_exported(root: &str) -> BTreeSet<&str> {
    let uses = root.split("pub use ").skip(1).filter_map(|rest| rest.split(';').next());
    // Names of modules come with the names of what they hold, and are no re-export.
    let words = uses.flat_map(|tree| tree.split(|c: char| !(c.is_alphanumeric() || c == '_')));
    words.filter(|word| word.starts_with(|c: char| c.is_uppercase())).collect()
}

#[test]
fn modules_use_only_what_lies_below_them() {
    let sources = sources();

    let wrong: Vec<String> = CRATES.iter().flat_map(|it| it.problems(&sources)).collect();
    assert_none("these arrows between modules are not in tests/tidy/arrows.rs", &wrong);
}

/// The problems of a crate of two files.
fn problems_of(low: &str, high: &str) -> Vec<String> {
    let root = "pub use high::High;\nmod low;\nmod high;".to_owned();
    let sources = [
        ("x/src/lib.rs".to_owned(), root),
        ("x/src/low.rs".to_owned(), low.to_owned()),
        ("x/src/high/part.rs".to_owned(), high.to_owned()),
    ];
    Crate { folder: "x/src", floors: &[("low", &[]), ("high", &["low"])] }.problems(&sources)
}

#[test]
fn an_arrow_is_found_however_it_is_written() {
    for high in ["use crate::low::A;", "use crate::{low::{A, B}};", "fn f() { super::super::low::g() }"] {
        assert_eq!(problems_of("", high), Vec::<String>::new(), "{high}");
    }
    for low in ["use crate::high::A;", "use crate::{self, high};", "fn f() -> super::high::A {}"] {
        let wrong = problems_of(low, "use crate::low;");
        assert_eq!(wrong, ["x/src: low uses high (low.rs)"], "{low}");
    }
}

#[test]
fn comments_and_tests_may_name_what_they_like() {
    let low =
        "// crate::high\n#[cfg(test)]\nuse crate::high::A;\n#[cfg(test)]\nmod tests { fn f() { crate::high::g() } }\n";

    assert_eq!(problems_of(low, "use crate::low;"), Vec::<String>::new());
    assert_eq!(problems_of(&format!("{low}use crate::high;"), "use crate::low;").len(), 1);
}

#[test]
fn a_list_names_no_arrow_that_nobody_uses() {
    assert_eq!(problems_of("", ""), ["x/src: high → low is unused: take it off the list"]);
}

#[test]
fn a_re_export_hides_no_arrow() {
    let wrong = problems_of("use crate::High;", "use crate::low;");

    assert_eq!(wrong, ["x/src: low.rs: crate::High hides where it comes from"]);
}
