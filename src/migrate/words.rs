//! Text as systemd cuts it (systemd.syntax(7), systemd.exec(5)): words with quotes and escapes, and environment files.
//! A shell does it differently: there a backslash before a dot goes, and `#` begins a comment.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::str::Chars;

/// What a backslash means outside of environment files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Escapes {
    /// Those of C; a backslash before anything else is kept. So it is in units.
    C,
    /// The next character is meant as it is. So it is in the value of a variable that becomes words.
    Plain,
}

/// The words of a line; `None` if a quote is not closed.
pub(super) fn words(line: &str, escapes: Escapes) -> Option<Vec<String>> {
    let (mut words, mut chars) = (Vec::new(), line.chars().peekable());
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        if chars.peek().is_none() {
            return Some(words);
        }
        words.push(word(&mut chars, escapes)?);
    }
}

fn word(chars: &mut Peekable<Chars<'_>>, escapes: Escapes) -> Option<String> {
    let (mut word, mut quote) = (String::new(), None);
    while let Some(c) = chars.next_if(|c| quote.is_some() || !c.is_whitespace()) {
        match (c, quote) {
            ('\\', _) => escaped(chars, escapes, &mut word),
            ('"' | '\'', None) => quote = Some(c),
            (_, Some(open)) if open == c => quote = None,
            _ => word.push(c),
        }
    }
    quote.is_none().then_some(word)
}

/// What follows a backslash.
fn escaped(chars: &mut Peekable<Chars<'_>>, escapes: Escapes, word: &mut String) {
    let Some(c) = chars.next() else { return word.push('\\') };
    if escapes == Escapes::Plain {
        return word.push(c);
    }
    let simple = match c {
        'a' => '\x07',
        'b' => '\x08',
        'f' => '\x0c',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\x0b',
        's' => ' ',
        '\\' | '"' | '\'' => c,
        _ => return coded(c, chars, word),
    };
    word.push(simple);
}

/// A character by its number, or nothing that systemd knows.
fn coded(c: char, chars: &mut Peekable<Chars<'_>>, word: &mut String) {
    let (radix, count, first) = match c {
        'x' => (16, 2, None),
        'u' => (16, 4, None),
        'U' => (16, 8, None),
        '0'..='7' => (8, 2, Some(c)),
        _ => (0, 0, None),
    };
    let digits: String = first.into_iter().chain(chars.clone().take(count)).collect();
    let code = (count > 0).then(|| u32::from_str_radix(&digits, radix).ok()).flatten();
    match code.and_then(char::from_u32).filter(|code| *code != '\0') {
        Some(code) => {
            word.push(code);
            chars.by_ref().take(count).for_each(drop);
        }
        None => word.extend(['\\', c]),
    }
}

/// The variables of an environment file. A value may go over lines, in quotes or behind a backslash; a line that is no
/// assignment to a name says nothing.
pub(super) fn variables(text: &str) -> BTreeMap<String, String> {
    let (mut vars, mut chars) = (BTreeMap::new(), text.chars().peekable());
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        let comment = chars.peek().is_some_and(|c| matches!(c, '#' | ';'));
        let before = until(&mut chars, |c| is_end(c) || (c == '=' && !comment));
        match chars.next() {
            Some('=') if !comment => {
                let value = value(&mut chars);
                let key = before.trim_end();
                if !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
                    vars.insert(key.to_owned(), value);
                }
            }
            Some(_) => {}
            None => return vars,
        }
    }
}

/// Quoted parts, of which the first begins the value, and then whatever the line has left.
fn value(chars: &mut Peekable<Chars<'_>>) -> String {
    let mut value = String::new();
    loop {
        until(chars, |c| is_end(c) || !c.is_whitespace());
        match chars.next_if(|c| matches!(c, '"' | '\'')) {
            Some(quote) => quoted(chars, quote, &mut value),
            None => break,
        }
    }
    let mut bare = String::new();
    while let Some(c) = chars.next_if(|c| !is_end(*c)) {
        if c == '\\' {
            bare.extend(chars.next().filter(|next| !is_end(*next)));
        } else {
            bare.push(c);
        }
    }
    value + bare.trim_end()
}

/// Up to the quote that closes; only double quotes have escapes in them.
fn quoted(chars: &mut Peekable<Chars<'_>>, quote: char, value: &mut String) {
    while let Some(c) = chars.next().filter(|c| *c != quote) {
        match c {
            '\\' if quote == '"' => match chars.next() {
                Some('\n') | None => {}
                Some(next @ ('"' | '\\' | '`' | '$')) => value.push(next),
                Some(next) => value.extend([c, next]),
            },
            _ => value.push(c),
        }
    }
}

fn is_end(c: char) -> bool {
    matches!(c, '\n' | '\r')
}

/// Takes what comes before a character.
fn until(chars: &mut Peekable<Chars<'_>>, stop: impl Fn(char) -> bool) -> String {
    std::iter::from_fn(|| chars.next_if(|c| !stop(*c))).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Rows of systemd 252's own tests (test-extract-word.c), and what flanneld's units have.
    #[test]
    fn lines_become_words() {
        type Row<'a> = (&'a str, Option<&'a [&'a str]>);
        let rows: &[Row<'_>] = &[
            ("foobar waldo", Some(&["foobar", "waldo"])),
            ("\"foobar\" \'waldo\'", Some(&["foobar", "waldo"])),
            (" foo\"bar\"'w a' ", Some(&["foobarw a"])),
            ("\"foobar", None),
            ("'fooo\\bar' \"\"", Some(&["fooo\u{8}ar", ""])),
            ("\\w\\\\ \\x41 \\101\\u00e4", Some(&["\\w\\", "A", "Aä"])),
            ("-iface-regex=^192\\.168\\. # x", Some(&["-iface-regex=^192\\.168\\.", "#", "x"])),
            ("a\\", Some(&["a\\"])),
            ("", Some(&[])),
        ];
        for (line, want) in rows {
            let found = words(line, Escapes::C);
            let found: Option<Vec<&str>> = found.as_ref().map(|all| all.iter().map(String::as_str).collect());
            assert_eq!(found.as_deref(), *want, "{line}");
        }
        assert_eq!(words("'a b' 1\\.2\\ 3", Escapes::Plain).unwrap(), ["a b", "1.2 3"]);
    }

    /// Rows of systemd 252's own tests (test-fileio.c).
    #[test]
    fn environment_files_are_read_as_systemd_does() {
        let text = "a=a\nb=b\\\nc\n  d= d\\\ne  \\\nf  \ng=g\\ \nh= ąęół\\ śćńźżμ \\\nz\ni=i\\\n\n; x=1\n#y=\\\nz=1\n\
                    export E=1\n=1\nnone\nq=\"a \\\"b\\\" \\c\n d\" # e\nr='x\\y''z'\nw=1\r\nlast=\"open";
        let want = [
            ("a", "a"),
            ("b", "bc"),
            ("d", "de  f"),
            ("g", "g"),
            ("h", "ąęół śćńźżμ z"),
            ("i", "i"),
            ("last", "open"),
            ("q", "a \"b\" \\c\n d# e"),
            ("r", "x\\yz"),
            ("w", "1"),
            ("z", "1"),
        ];
        let found = variables(text);
        let found: Vec<_> = found.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(found, want);
    }

    proptest! {
        #[test]
        fn nothing_panics_and_nothing_is_invented(text in "[-a=\"'\\\\ \n\rx0-9u#;$]{0,60}|.{0,60}") {
            for escapes in [Escapes::C, Escapes::Plain] {
                let words = words(&text, escapes).unwrap_or_default();
                prop_assert!(words.iter().map(|word| word.chars().count()).sum::<usize>() <= text.chars().count());
            }
            let vars = variables(&text);
            prop_assert!(vars.iter().all(|(key, value)| !key.is_empty() && key.len() + value.len() < text.len()));
        }

        #[test]
        fn a_quoted_word_comes_back(word in "[^\"\\\\]{0,20}") {
            prop_assert_eq!(words(&format!("\"{word}\""), Escapes::C), Some(vec![word.clone()]));
            let vars = variables(&format!("K=\"{word}\""));
            prop_assert_eq!(vars.get("K"), Some(&word));
        }
    }
}
