//! The console: the page at `/`, its scripts and its style, embedded so that the binary is all there is to install.
//! Files and their media types only; routing, headers and `/console/config.json` are `api`'s.
//! Invariants, held by tests: everything the page refers to is here, and nothing in it needs more than `default-src 'self'`
//! with WebSockets allowed.

/// One embedded file.
#[derive(Clone, Copy, Debug)]
pub struct Asset {
    pub path: &'static str,
    pub media_type: &'static str,
    pub body: &'static str,
}

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

macro_rules! script {
    ($name:literal) => {
        Asset { path: concat!("/console/", $name), media_type: JAVASCRIPT, body: include_str!($name) }
    };
}

/// Everything the page consists of.
pub const ASSETS: [Asset; 17] = [
    Asset { path: "/", media_type: "text/html; charset=utf-8", body: include_str!("index.html") },
    Asset { path: "/console/style.css", media_type: "text/css; charset=utf-8", body: include_str!("style.css") },
    Asset { path: "/console/icon.svg", media_type: "image/svg+xml", body: include_str!("icon.svg") },
    script!("agents.js"),
    script!("app.js"),
    script!("banner.js"),
    script!("chat.js"),
    script!("connection.js"),
    script!("departures.js"),
    script!("figures.js"),
    script!("page.js"),
    script!("place.js"),
    script!("push.js"),
    script!("rooms.js"),
    script!("rules.js"),
    script!("session.js"),
    script!("stream.js"),
];

/// The file at a path of the API's listener.
#[must_use]
pub fn asset(path: &str) -> Option<&'static Asset> {
    ASSETS.iter().find(|asset| asset.path == path)
}

/// Names of the files under `/console/`.
pub fn files() -> impl Iterator<Item = &'static str> {
    ASSETS.iter().filter_map(|asset| asset.path.strip_prefix("/console/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scripts() -> impl Iterator<Item = &'static Asset> {
        ASSETS.iter().filter(|asset| asset.media_type == JAVASCRIPT)
    }

    /// What stands between `before` and the next `after`, each time.
    fn between<'a>(text: &'a str, before: &'a str, after: &'a str) -> impl Iterator<Item = &'a str> {
        text.split(before).skip(1).filter_map(move |rest| rest.split(after).next())
    }

    #[test]
    fn every_file_the_page_loads_is_embedded() {
        let page = asset("/").expect("the page").body;
        let references = between(page, "=\"/console/", "\"").map(|name| format!("/console/{name}"));

        let imports = scripts().flat_map(|script| between(script.body, " from \"./", "\""));
        let mut paths = references.chain(imports.map(|name| format!("/console/{name}")));

        assert_eq!(paths.find(|path| asset(path).is_none()), None);
    }

    #[test]
    fn every_element_a_script_asks_for_is_on_the_page() {
        let page = asset("/").expect("the page").body;

        let mut ids = scripts().flat_map(|script| between(script.body, "$(\"", "\")"));

        assert_eq!(ids.find(|id| !page.contains(&format!("id=\"{id}\""))), None);
    }

    #[test]
    fn the_page_has_no_inline_script_style_or_foreign_address() {
        let page = asset("/").expect("the page").body;

        assert!([" style=", "<style", " onclick=", "javascript:", "data:"].iter().all(|banned| !page.contains(banned)));
        assert_eq!(page.matches("<script").count(), page.matches("<script type=\"module\" src=\"/console/").count());
        let addresses = ASSETS.iter().flat_map(|asset| between(asset.body, "https://", "\""));
        assert_eq!(addresses.count(), 0);
    }
}
