//! What an attachment is called in the mail: a file name and a content type that cannot mislead or break anything.
//!
//! Pure. Must not know: where the file comes from.

use percent_encoding::percent_decode_str;
use url::Url;

/// Enough for any name people give files; longer ones break mail programs (characters).
const NAME_CHARS_MAX: usize = 100;
/// A longer ending is no extension (characters).
const EXTENSION_CHARS_MAX: usize = 10;
/// A file without a name.
const NAMELESS: &str = "attachment";
/// What it is where nobody says what it is.
const BYTES: &str = "application/octet-stream";

/// The name the campaign gives, else the last segment of the URL's path. A given name without an extension gets the
/// URL's: mail programs go by it.
pub(super) fn file_name(given: Option<&str>, url: Option<&Url>) -> String {
    let in_url = url.map(last_segment).map(|name| sane(&name));
    let in_url = in_url.filter(|name| !name.is_empty());
    let given = given.map(sane).filter(|name| !name.is_empty());
    match (given, in_url) {
        (Some(given), Some(in_url)) => match (extension(&given), extension(&in_url)) {
            (None, Some(extension)) => format!("{given}.{extension}"),
            _ => given,
        },
        (Some(name), None) | (None, Some(name)) => name,
        (None, None) => NAMELESS.to_owned(),
    }
}

/// The type the server names, without its parameters but a text's charset. What would be read as a part of the mail
/// itself (`multipart/…`, `message/…`) is only bytes.
pub(super) fn content_type(header: Option<&str>) -> String {
    let mut parts = header.unwrap_or_default().split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default().to_ascii_lowercase();
    let Some((kind, subtype)) = essence.split_once('/') else {
        return BYTES.to_owned();
    };
    let is_of_the_mail = matches!(kind, "multipart" | "message");
    if !is_token(kind) || !is_token(subtype) || is_of_the_mail {
        return BYTES.to_owned();
    }
    let charset = parts.find_map(charset).filter(|_| kind == "text");
    match charset {
        Some(charset) => format!("{essence}; charset={charset}"),
        None => essence,
    }
}

fn last_segment(url: &Url) -> String {
    let segment = url.path().rsplit('/').next().unwrap_or_default();
    percent_decode_str(segment).decode_utf8_lossy().into_owned()
}

/// A name without paths, controls, and characters that turn the reading direction or that Windows refuses, in which
/// no dot or blank stands at an end.
fn sane(name: &str) -> String {
    let visible = name.chars().filter(|c| !is_invisible(*c));
    let plain: String = visible.map(|c| if is_unfit(c) { '_' } else { c }).collect();
    let words: Vec<_> = plain.split_whitespace().collect();
    shortened(words.join(" ").trim_matches(['.', ' ']))
}

/// At most [`NAME_CHARS_MAX`] characters, its extension kept.
fn shortened(name: &str) -> String {
    if name.chars().count() <= NAME_CHARS_MAX {
        return name.to_owned();
    }
    let extension = extension(name).map(|extension| format!(".{extension}"));
    let extension = extension.unwrap_or_default();
    let stem_max = NAME_CHARS_MAX - extension.chars().count();
    let stem: String = name.chars().take(stem_max).collect();
    format!("{}{extension}", stem.trim_end_matches(['.', ' ']))
}

fn extension(name: &str) -> Option<&str> {
    let (stem, extension) = name.rsplit_once('.')?;
    let is_short = (1..=EXTENSION_CHARS_MAX).contains(&extension.len());
    let is_plain = extension.bytes().all(|b| b.is_ascii_alphanumeric());
    (!stem.is_empty() && is_short && is_plain).then_some(extension)
}

fn is_unfit(c: char) -> bool {
    (c.is_control() && !c.is_whitespace()) || r#"/\:*?"<>|"#.contains(c)
}

/// Zero-width characters and those that turn the reading direction: `exe.pdf` must not be a `fdp.exe`.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fffd}')
}

fn charset(parameter: &str) -> Option<String> {
    let (name, value) = parameter.split_once('=')?;
    let value = value.trim().trim_matches('"');
    (name.trim().eq_ignore_ascii_case("charset") && is_token(value)).then(|| value.to_owned())
}

fn is_token(text: &str) -> bool {
    let is_fit = |b: u8| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b);
    (1..=64).contains(&text.len()) && text.bytes().all(is_fit)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn named(given: Option<&str>, url: &str) -> String {
        file_name(given, Some(&Url::parse(url).unwrap()))
    }

    #[test]
    fn a_file_is_called_what_the_campaign_says_else_what_its_url_ends_in() {
        assert_eq!(
            named(Some("Price list.pdf"), "https://a.example/x"),
            "Price list.pdf"
        );
        assert_eq!(
            named(Some("Price list"), "https://a.example/x.pdf?v=1"),
            "Price list.pdf"
        );
        assert_eq!(
            named(None, "https://a.example/b/Gr%C3%BC%C3%9Fe.txt#a"),
            "Grüße.txt"
        );
        assert_eq!(named(Some(" "), "https://a.example/"), "attachment");
    }

    #[test]
    fn a_name_leads_nowhere_and_misleads_nobody() {
        assert_eq!(sane("../../etc/passwd"), "_.._etc_passwd");
        assert_eq!(sane(r"C:\run.exe"), "C__run.exe");
        assert_eq!(sane("invoice\u{202e}fdp.exe"), "invoicefdp.exe");
        assert_eq!(
            sane("a\r\nContent-Type: text/html"),
            "a Content-Type_ text_html"
        );
        assert_eq!(
            named(None, "https://a.example/%2e%2e%2fx%00.pdf"),
            "_x_.pdf"
        );
    }

    #[test]
    fn a_long_name_keeps_its_extension() {
        let name = sane(&format!("{}.pdf", "ä".repeat(500)));
        assert!(name.ends_with("ä.pdf") && name.chars().count() == NAME_CHARS_MAX);
    }

    #[test]
    fn a_type_is_what_the_server_says_unless_it_would_be_read_as_mail() {
        assert_eq!(
            content_type(Some("Application/PDF; name=\"x\"")),
            "application/pdf"
        );
        assert_eq!(
            content_type(Some("text/csv; header=x; Charset=\"utf-8\"")),
            "text/csv; charset=utf-8"
        );
        let odd = [
            "",
            "pdf",
            "a/b/c",
            "a/ü",
            "a/b\r\nBcc",
            "multipart/mixed",
            "message/rfc822",
        ];
        for header in odd {
            assert_eq!(content_type(Some(header)), BYTES, "{header}");
        }
        assert_eq!(content_type(None), BYTES);
    }

    proptest! {
        #[test]
        fn any_name_becomes_a_sane_one(name in any::<String>()) {
            let name = file_name(Some(&name), None);
            prop_assert!(!name.is_empty() && name.chars().count() <= NAME_CHARS_MAX);
            prop_assert!(!name.chars().any(|c| c.is_control() || is_unfit(c) || is_invisible(c)));
            prop_assert!(!name.starts_with(['.', ' ']) && !name.ends_with(['.', ' ']));
        }

        #[test]
        fn any_type_becomes_one_that_mail_takes(header in any::<String>()) {
            prop_assert!(lettre::message::header::ContentType::parse(&content_type(Some(&header))).is_ok());
        }
    }
}
