//! How labels and country names are compared: letter case, accents and punctuation make no difference (R14).
//!
//! Must not know: which labels or countries there are.

/// The label with nothing left but lower-case letters and digits, accents folded: `E-Mail*`, `eMail` and `e_mail` are
/// all `email`.
pub(crate) fn loose(label: &str) -> String {
    let mut folded = String::with_capacity(label.len());
    for c in label.chars().filter(|c| c.is_alphanumeric()) {
        fold_into(&mut folded, c);
    }
    folded
}

/// The words of a label or a name, lower-case and folded, split at punctuation and at camel case: `userID_new` is
/// `user`, `id`, `new`. Dots and apostrophes split nothing: `U.S.A.` is `usa`.
pub(super) fn words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut before = Before::Nothing;
    let mut chars = text.chars().filter(|c| !is_silent(*c)).peekable();
    while let Some(c) = chars.next() {
        let ends_acronym = chars.peek().is_some_and(|next| next.is_lowercase());
        if !c.is_alphanumeric() || starts_word(before, c, ends_acronym) {
            words.push(String::new());
        }
        before = Before::of(c);
        if let Some(word) = words.last_mut().filter(|_| c.is_alphanumeric()) {
            fold_into(word, c);
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// The kind of the previous character, for camel case.
#[derive(Clone, Copy, PartialEq)]
enum Before {
    Nothing,
    Lower,
    Upper,
}

impl Before {
    fn of(c: char) -> Self {
        match c {
            c if c.is_uppercase() => Before::Upper,
            c if c.is_alphanumeric() => Before::Lower,
            _ => Before::Nothing,
        }
    }
}

fn starts_word(before: Before, c: char, ends_acronym: bool) -> bool {
    let after_acronym = before == Before::Upper && ends_acronym;
    c.is_uppercase() && (before == Before::Lower || after_acronym)
}

fn is_silent(c: char) -> bool {
    matches!(c, '.' | '\'' | '’' | '\u{300}'..='\u{36f}')
}

/// Latin letters lose their accents; every other script stays as it is.
fn fold_into(folded: &mut String, c: char) {
    for c in c.to_lowercase() {
        match c {
            'à'..='å' | 'ā' | 'ă' | 'ą' => folded.push('a'),
            'ç' | 'ć' | 'č' => folded.push('c'),
            'ď' | 'đ' => folded.push('d'),
            'è'..='ë' | 'ē' | 'ė' | 'ę' | 'ě' => folded.push('e'),
            'ğ' => folded.push('g'),
            'ì'..='ï' | 'ī' | 'į' | 'ı' => folded.push('i'),
            'ł' => folded.push('l'),
            'ñ' | 'ń' | 'ň' => folded.push('n'),
            'ò'..='ö' | 'ø' | 'ō' | 'ő' => folded.push('o'),
            'ř' => folded.push('r'),
            'ś' | 'ş' | 'š' | 'ș' => folded.push('s'),
            'ť' | 'ţ' | 'ț' => folded.push('t'),
            'ù'..='ü' | 'ū' | 'ů' | 'ű' => folded.push('u'),
            'ý' | 'ÿ' => folded.push('y'),
            'ź' | 'ż' | 'ž' => folded.push('z'),
            'ß' => folded.push_str("ss"),
            'æ' => folded.push_str("ae"),
            'œ' => folded.push_str("oe"),
            '\u{300}'..='\u{36f}' => {}
            c => folded.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_blanks_dashes_and_marks_make_no_difference() {
        for label in [
            "E-Mail*",
            "eMail",
            "e_mail",
            " E MAIL: ",
            "EMAIL?",
            "é-mail",
        ] {
            assert_eq!(loose(label), "email", "{label}");
        }
        assert_eq!(loose("TELE\u{301}FONO"), "telefono");
        assert_eq!(loose("メールアドレス"), "メールアドレス");
    }

    #[test]
    fn words_end_at_punctuation_and_at_camel_case() {
        assert_eq!(words("userID_new"), ["user", "id", "new"]);
        assert_eq!(words("IPAddress"), ["ip", "address"]);
        assert_eq!(words("côte d’ivoire"), ["cote", "divoire"]);
        assert_eq!(words("U.S.A."), ["usa"]);
        assert!(words(" -- ").is_empty());
    }
}
