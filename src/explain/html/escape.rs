//! Text of a model inside a page. ONNX names are whatever their author, or an attacker, wrote.

/// For element content and for attribute values in double quotes. Characters that XML cannot have become U+FFFD.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\t' | '\n' => out.push(c),
            // Controls, noncharacters, and what turns the direction of the text around it.
            c if c.is_control() => out.push('\u{fffd}'),
            '\u{fffe}' | '\u{ffff}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// The beginning of a text, with an ellipsis where something is left out; counts characters.
pub fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_string(),
        Some(_) => text.chars().take(most.saturating_sub(1)).chain(['…']).collect(),
    }
}

/// The end of a text, which is what tells long names apart, with an ellipsis where something is left out.
pub fn ending(text: &str, most: usize) -> String {
    match text.chars().count().checked_sub(most) {
        None | Some(0) => text.to_string(),
        Some(more) => ['…'].into_iter().chain(text.chars().skip(more + 1)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_ends_an_element_or_an_attribute() {
        assert_eq!(escape("</title><script a='\"&"), "&lt;/title&gt;&lt;script a=&#39;&quot;&amp;");
        assert_eq!(escape("a\0b\u{202e}c\u{ffff}\té"), "a\u{fffd}b\u{fffd}c\u{fffd}\té");
    }

    #[test]
    fn shortening_counts_characters() {
        assert_eq!(shortened("größe", 5), "größe");
        assert_eq!(shortened("größen", 5), "größ…");
        assert_eq!([ending("größe", 5), ending("größen", 5)], ["größe", "…ößen"]);
    }
}
