//! The plain text beside an HTML message, for those who read mail without HTML.
//!
//! Pure. Must not know: where the HTML comes from.

/// Longer HTML is cut for the alternative: people have the HTML, and tags made to hurt cost time by the square of it
/// (bytes).
const HTML_BYTES_MAX: usize = 32 << 10;

/// The text of some HTML, each link's address behind it.
pub(super) fn text(html: &str) -> String {
    let html = &html[..html.floor_char_boundary(HTML_BYTES_MAX)];
    nanohtml2text::html2text(html)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn blocks_become_lines_and_links_are_kept() {
        let html = "<style>p{}</style><p>Hello <b>Ada</b> &amp; co.</p>\n\
            <p>See <a href=\"https://a.example/\">us</a>.</p>";
        assert_eq!(
            text(html).replace("\r\n", "\n").trim(),
            "Hello Ada & co.\n\nSee us (https://a.example/)."
        );
    }

    #[test]
    fn html_made_to_hurt_costs_a_bounded_time() {
        let pieces = [
            "<div>",
            "<table><tr><td>",
            "<a \"",
            "<ul><li>",
            "&#",
            "<!--",
            "<a>",
            "<a href=x>y",
            "<",
            "</",
            "<pre>",
            "<script>",
            "<a href=\"",
            "<!-- <a>",
            "<a><script>",
        ];
        for piece in pieces {
            let begun = Instant::now();
            text(&piece.repeat(HTML_BYTES_MAX));
            assert!(begun.elapsed() < Duration::from_secs(20), "{piece}");
        }
    }

    proptest! {
        #[test]
        fn any_html_has_a_text(html in "(</?(p|table|tr|td|ul|li|a|pre|b|div|ol|h1|img)( href=\"?[a-z0-9&;]{0,9}\"?)?>|[a-zä&#;<>! -]){0,60}") {
            text(&html);
        }
    }
}
