//! Details of failures: texts for people, on one line, bounded, without secrets.
//!
//! Must not know: whose failure it is, or what is to be done about it.

/// Enough for a provider's message; details end up in outcomes, in a lead's `errors` and in logs.
const CHARS_MAX: usize = 500;

/// The text, fit for logs: secrets masked (written plainly or as in a URL), blanks for control characters, at most 500
/// characters.
///
/// Masking comes before cutting, so that no half of a secret remains.
pub fn fit_to_tell<'a>(detail: &str, secrets: impl IntoIterator<Item = &'a str>) -> String {
    let masked = secrets.into_iter().fold(detail.to_owned(), mask);
    let mut chars = masked.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut text: String = chars.by_ref().take(CHARS_MAX).collect();
    if chars.next().is_some() {
        text.push('…');
    }
    text
}

/// The error and what caused it: reqwest's own text says only that sending failed.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

fn mask(text: String, secret: &str) -> String {
    if secret.is_empty() {
        return text;
    }
    let in_url: String = form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    text.replace(secret, "***").replace(&in_url, "***")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_are_bounded_and_on_one_line() {
        let text = fit_to_tell(&"é\n".repeat(10_000), []);
        assert_eq!(text.chars().count(), CHARS_MAX + 1);
        assert!(text.starts_with("é é ") && text.ends_with('…'));
        assert_eq!(fit_to_tell("short", []), "short");
    }

    #[test]
    fn a_secret_is_masked_as_it_is_and_as_in_a_url_and_never_cut_in_half() {
        let text = fit_to_tell("a b/c b%2Fc d", ["b/c", ""]);
        assert_eq!(text, "a *** *** d");
        let at_the_cut = format!("{}secret", "x".repeat(CHARS_MAX - 3));
        assert!(!fit_to_tell(&at_the_cut, ["secret"]).contains("sec"));
    }

    #[test]
    fn an_error_is_told_with_its_causes() {
        let cause = std::io::Error::other("the cable is cut");
        let error = std::io::Error::other(cause);
        assert!(with_causes(&error).ends_with("the cable is cut"));
    }
}
