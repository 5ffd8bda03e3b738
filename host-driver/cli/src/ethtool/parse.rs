//! ethtool's words.

use anyhow::{Result, bail};

/// Names and values, in the order given.
pub type Settings = Vec<(String, String)>;

/// What `-X` asks for.
#[derive(Debug, PartialEq, Eq, Default)]
pub struct Rxfh {
    /// The indirection table, if it is to change.
    pub table: Option<Indirection>,
    /// The hash key, if it is to change.
    pub key: Option<Vec<u8>>,
}

/// How an indirection table is filled.
#[derive(Debug, PartialEq, Eq)]
pub enum Indirection {
    /// As the device does when it is asked for nothing.
    Default,
    /// So many receive rings in turn.
    Equal(u16),
    /// Rings from the first on, each with as many entries as its share of the sum.
    Weight(Vec<u32>),
}

/// One option.
#[derive(Debug, PartialEq, Eq)]
pub enum Operation {
    /// Nothing
    Link,
    /// `-a`
    ShowPause,
    /// `-A`
    SetPause(Settings),
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
    /// `-l`
    ShowChannels,
    /// `-L`
    SetChannels(Settings),
    /// `-x`
    ShowRxfh,
    /// `-X`
    SetRxfh(Rxfh),
    /// `-S`
    Statistics,
    /// `-i`
    Driver,
    /// `-t`
    Test,
    /// `-t offline`
    OfflineTest,
}

/// A word, and what it stands for.
type Mode = (&'static str, fn() -> Operation);

/// How an option's words are read.
enum Kind {
    /// Nothing but the interface's name.
    Show(fn() -> Operation),
    /// Names and values behind it.
    Set(fn(Settings) -> Operation),
    /// Words of its own kind.
    Rxfh(fn(Rxfh) -> Operation),
    /// One of these words, or none for the first.
    Mode(&'static [Mode]),
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
    (&["-l", "--show-channels"], Kind::Show(|| Operation::ShowChannels)),
    (&["-L", "--set-channels"], Kind::Set(Operation::SetChannels)),
    (
        &["-x", "--show-rxfh-indir", "--show-rxfh"],
        Kind::Show(|| Operation::ShowRxfh),
    ),
    (
        &["-X", "--set-rxfh-indir", "--rxfh"],
        Kind::Rxfh(Operation::SetRxfh),
    ),
    (&["-a", "--show-pause"], Kind::Show(|| Operation::ShowPause)),
    (&["-A", "--pause"], Kind::Set(Operation::SetPause)),
    (&["-S", "--statistics"], Kind::Show(|| Operation::Statistics)),
    (&["-i", "--driver"], Kind::Show(|| Operation::Driver)),
    (
        &["-t", "--test"],
        Kind::Mode(&[
            ("online", || Operation::Test),
            ("offline", || Operation::OfflineTest),
        ]),
    ),
];

/// What the words ask for; `interface` is the one name that an option may have.
///
/// # Errors
/// What can't be understood, and what could.
pub fn operations(words: &[String], interface: &str) -> Result<Vec<Operation>> {
    if words.is_empty() || words == [interface] {
        return Ok(vec![Operation::Link]);
    }
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
    Ok(operations)
}

fn operation(option: &str, kind: &Kind, words: &[String], interface: &str) -> Result<Operation> {
    let words = match words {
        [name, rest @ ..] if name == interface => rest,
        all => all,
    };
    match kind {
        Kind::Show(make) if words.is_empty() => Ok(make()),
        Kind::Mode(modes) => {
            let word = words.join(" ");
            let mode = modes.iter().find(|mode| words.is_empty() || mode.0 == word);
            let Some((_, make)) = mode else {
                let all: Vec<&str> = modes.iter().map(|mode| mode.0).collect();
                bail!(
                    "{option}: `{word}` is none of {}; the interface is {interface}",
                    all.join(", ")
                );
            };
            Ok(make())
        }
        Kind::Show(_) => {
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
        Kind::Rxfh(make) => Ok(make(rxfh(option, words)?)),
    }
}

/// `equal N`, `weight W...`, `default` and `hkey xx:...`, in any order.
fn rxfh(option: &str, words: &[String]) -> Result<Rxfh> {
    let mut rxfh = Rxfh::default();
    let mut rest = words;
    while let [word, behind @ ..] = rest {
        let (table, taken) = match (word.as_str(), behind) {
            ("default", _) => (Indirection::Default, 0),
            ("equal", [rings, ..]) => match rings.parse() {
                Ok(rings) if rings > 0 => (Indirection::Equal(rings), 1),
                _ => bail!("{option}: `equal {rings}`: a number of receive rings is wanted"),
            },
            ("weight", [_, ..]) => {
                let weights: Vec<u32> = behind.iter().map_while(|weight| weight.parse().ok()).collect();
                let taken = weights.len();
                if weights.iter().all(|weight| *weight == 0) {
                    bail!("{option}: at least one weight must be a number above 0");
                }
                (Indirection::Weight(weights), taken)
            }
            ("hkey", [key, ..]) => {
                rxfh.key = Some(hash_key(option, key)?);
                rest = &behind[1..];
                continue;
            }
            ("equal" | "weight" | "hkey", []) => bail!("{option}: `{word}` needs a value"),
            _ => bail!("{option}: `{word}` is none of equal, weight, hkey, default"),
        };
        if rxfh.table.replace(table).is_some() {
            bail!("{option}: only one of equal, weight and default");
        }
        rest = &behind[taken..];
    }
    if rxfh == Rxfh::default() {
        bail!("{option} takes equal N, weight W0 W1 ..., hkey xx:yy:... or default");
    }
    if rxfh.table == Some(Indirection::Default) && rxfh.key.is_some() {
        bail!("{option}: `default` leaves nothing for `hkey` to do");
    }
    Ok(rxfh)
}

/// Bytes in hexadecimal with colons between them.
fn hash_key(option: &str, text: &str) -> Result<Vec<u8>> {
    let byte = |digits: &str| u8::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 2);
    let key: Option<Vec<u8>> = text.split(':').map(byte).collect();
    match key {
        Some(key) => Ok(key),
        None => {
            bail!("{option}: `{text}` is not a hash key: two hexadecimal digits a byte, colons between them")
        }
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
    fn the_hash_of_received_frames_has_words_of_its_own() {
        let all =
            parsed("-X eth0 equal 2 hkey 00:ff:1a -x --rxfh weight 3 0 1 -X default -X hkey ab").unwrap();
        let set = |table, key: &[u8]| {
            let key = (!key.is_empty()).then(|| key.to_vec());
            Operation::SetRxfh(Rxfh { table, key })
        };
        assert_eq!(
            all,
            [
                set(Some(Indirection::Equal(2)), &[0, 0xff, 0x1a]),
                Operation::ShowRxfh,
                set(Some(Indirection::Weight(vec![3, 0, 1])), &[]),
                set(Some(Indirection::Default), &[]),
                set(None, &[0xab]),
            ]
        );
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (text, says) in [
            ("-Z", "`-Z` is none of -k, -K"),
            ("-k eth1", "the interface is eth0"),
            ("-K eth0", "takes names"),
            ("-G rx", "takes names"),
            ("-t external_lb", "`external_lb` is none of online, offline"),
            ("-L combined", "takes names"),
            ("-l all", "the interface is eth0"),
            ("-X", "takes equal N"),
            ("-X eth0 equal", "`equal` needs a value"),
            ("-X equal 0", "a number of receive rings"),
            ("-X weight 0 0", "at least one weight"),
            ("-X weight many", "at least one weight"),
            ("-X equal 2 weight 1 1", "only one of"),
            ("-X default hkey 00:01", "leaves nothing"),
            ("-X hkey 0:1", "not a hash key"),
            ("-X hkey 00:xy", "not a hash key"),
            ("-X eth1 equal 2", "`eth1` is none of equal"),
        ] {
            let error = parsed(text).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
