//! HTML as it is written: text is escaped, markup is a constant of ours.
//! A file of its own because this is where a hostile string must stop. `raw` takes only what this crate wrote.

use serde::Serialize;

#[derive(Debug, Default)]
pub struct Html(String);

impl Html {
    /// Markup of ours, or what an `Html` holds already.
    pub fn raw(&mut self, markup: &str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// Text from anywhere, safe in elements and in double-quoted attributes.
    pub fn text(&mut self, text: &str) -> &mut Self {
        for character in text.chars() {
            match character {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                other => self.0.push(other),
            }
        }
        self
    }

    /// An element with text in it. `open` is the start tag's inside: name and attributes of ours.
    pub fn element(&mut self, open: &str, text: &str) -> &mut Self {
        let name = open.split(' ').next().unwrap_or(open);
        self.raw("<").raw(open).raw(">").text(text).raw("</").raw(name).raw(">")
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn into_string(self) -> String {
        self.0
    }
}

/// JSON that may stand inside a script element: nothing in it can end the element or begin a comment.
pub fn script_data(value: &impl Serialize) -> String {
    let json = serde_json::to_string(value).unwrap_or_else(|_| "[]".to_owned());
    // All three stand only within strings, where the escape means the same.
    json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_leave_its_element_or_attribute() {
        let mut html = Html::default();

        html.raw("<a title=\"").text("\"><script>'&").raw("\">");

        assert_eq!(html.as_str(), "<a title=\"&quot;&gt;&lt;script&gt;&#39;&amp;\">");
    }

    #[test]
    fn data_cannot_end_the_script_that_holds_it_and_stays_what_it_is() {
        let value = ["</script><!--", "a&b"];

        let data = script_data(&value);

        assert!(!data.contains(['<', '>', '&']), "{data}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&data).expect("JSON"), value);
    }
}
