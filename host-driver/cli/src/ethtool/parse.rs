//! ethtool's words.

use anyhow::{Result, bail};

/// Names and values, in the order given.
pub type Settings = Vec<(String, String)>;

/// One option.
#[derive(Debug, PartialEq, Eq)]
pub enum Operation {
    /// `-k`
    ShowFeatures,
    /// `-K`
    SetFeatures(Settings),
    /// `-c`
    ShowCoalesce,
    /// `-C`
    SetCoalesce(Settings),
    /// `-g`
    ShowRing,
    /// `-G`
    SetRing(Settings),
    /// `-S`
    Statistics,
    /// `-i`
    Driver,
    /// `-t`
    Test,
}

/// How an option's words are read.
enum Kind {
    /// Nothing but the interface's name.
    Show(fn() -> Operation),
    /// Names and values behind it.
    Set(fn(Settings) -> Operation),
    /// One word at most of these.
    Mode(&'static [&'static str], fn() -> Operation),
}

/// All options, short and long.
const OPTIONS: &[(&[&str], Kind)] = &[
    (
        &["-k", "--show-features", "--show-offload"],
        Kind::Show(|| Operation::ShowFeatures),
    ),
    (
        &["-K", "--features", "--offload"],
        Kind::Set(Operation::SetFeatures),
    ),
    (&["-c", "--show-coalesce"], Kind::Show(|| Operation::ShowCoalesce)),
    (&["-C", "--coalesce"], Kind::Set(Operation::SetCoalesce)),
    (&["-g", "--show-ring"], Kind::Show(|| Operation::ShowRing)),
    (&["-G", "--set-ring"], Kind::Set(Operation::SetRing)),
    (&["-S", "--statistics"], Kind::Show(|| Operation::Statistics)),
    (&["-i", "--driver"], Kind::Show(|| Operation::Driver)),
    (&["-t", "--test"], Kind::Mode(&["online"], || Operation::Test)),
];

/// What the words ask for; `interface` is the one name that an option may have.
///
/// # Errors
/// What can't be understood, and what could.
pub fn operations(words: &[String], interface: &str) -> Result<Vec<Operation>> {
    let mut operations = Vec::new();
    let mut rest = words;
    while let Some((option, behind)) = rest.split_first() {
        let known = OPTIONS.iter().find(|known| known.0.contains(&option.as_str()));
        let Some((_, kind)) = known else {
            let all: Vec<&str> = OPTIONS.iter().map(|known| known.0[0]).collect();
            bail!("`{option}` is none of {}", all.join(", "));
        };
        // No name, no value and no interface begins with a dash.
        let end = behind.iter().position(|word| word.starts_with('-'));
        let (own, others) = behind.split_at(end.unwrap_or(behind.len()));
        rest = others;
        operations.push(operation(option, kind, own, interface)?);
    }
    if operations.is_empty() {
        bail!("which option? -k, for example");
    }
    Ok(operations)
}

fn operation(option: &str, kind: &Kind, words: &[String], interface: &str) -> Result<Operation> {
    let words = match words {
        [name, rest @ ..] if name == interface => rest,
        all => all,
    };
    match kind {
        Kind::Show(make) | Kind::Mode(_, make) if words.is_empty() => Ok(make()),
        Kind::Mode(modes, make) if words.len() == 1 && modes.contains(&words[0].as_str()) => Ok(make()),
        Kind::Show(_) | Kind::Mode(..) => {
            bail!(
                "{option}: `{}` is not understood; the interface is {interface}",
                words.join(" ")
            )
        }
        Kind::Set(make) if words.len() >= 2 && words.len() % 2 == 0 => {
            let pairs = words.chunks_exact(2);
            Ok(make(
                pairs.map(|pair| (pair[0].clone(), pair[1].clone())).collect(),
            ))
        }
        Kind::Set(_) => bail!("{option} takes names, each with a value; the interface is {interface}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Vec<Operation>> {
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        operations(&words, "eth0")
    }

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        let owned = |pair: &(&str, &str)| (pair.0.to_owned(), pair.1.to_owned());
        pairs.iter().map(owned).collect()
    }

    #[test]
    fn options_stand_one_after_the_other_with_the_interface_or_without() {
        let all = parsed("-K eth0 tx off tso off --coalesce rx-usecs 8 -c eth0 -t online -S").unwrap();
        assert_eq!(
            all,
            [
                Operation::SetFeatures(settings(&[("tx", "off"), ("tso", "off")])),
                Operation::SetCoalesce(settings(&[("rx-usecs", "8")])),
                Operation::ShowCoalesce,
                Operation::Test,
                Operation::Statistics,
            ]
        );
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (text, says) in [
            ("", "which option"),
            ("-Z", "`-Z` is none of -k, -K"),
            ("-k eth1", "the interface is eth0"),
            ("-K eth0", "takes names"),
            ("-G rx", "takes names"),
            ("-t offline", "`offline` is not understood"),
        ] {
            let error = parsed(text).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
