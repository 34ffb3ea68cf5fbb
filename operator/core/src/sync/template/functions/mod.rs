//! The functions and tests of the language: one table each, from which calls, checks and documentation are made.
//!
//! A function sees its arguments and the meter, and nothing else. To add one, write it in the file of its subject
//! and add a line to the table.

mod encode;
mod pem;
mod structured;
mod text;

use std::ops::RangeInclusive;

use super::value::{Meter, Outcome, Value};

/// A function of the language.
pub(super) struct Function {
    pub(super) name: &'static str,
    doc: &'static str,
    /// How many arguments it takes, its subject included.
    pub(super) arguments: RangeInclusive<usize>,
    /// Whether its subject may be a name that does not exist.
    pub(super) takes_undefined: bool,
    pub(super) run: fn(&mut Meter, &[Value]) -> Outcome<Value>,
}

/// A test of the language, `x is name` or `x is name(y)`.
pub(super) struct Test {
    pub(super) name: &'static str,
    doc: &'static str,
    /// How many arguments it takes, its subject included.
    pub(super) arguments: usize,
    /// Whether its subject may be a name that does not exist.
    pub(super) takes_undefined: bool,
    pub(super) run: fn(&mut Meter, &[Value]) -> Outcome<bool>,
}

/// The function called `name`.
pub(super) fn function(name: &str) -> Option<&'static Function> {
    TABLE.iter().find(|function| function.name == name)
}

/// The test called `name`.
pub(super) fn test(name: &str) -> Option<&'static Test> {
    TESTS.iter().find(|test| test.name == name)
}

const fn takes(
    name: &'static str,
    arguments: RangeInclusive<usize>,
    run: fn(&mut Meter, &[Value]) -> Outcome<Value>,
    doc: &'static str,
) -> Function {
    Function {
        name,
        doc,
        arguments,
        takes_undefined: false,
        run,
    }
}

static TABLE: [Function; 34] = [
    takes("upper", 1..=1, text::upper, "the text in upper case"),
    takes("lower", 1..=1, text::lower, "the text in lower case"),
    takes(
        "trim",
        1..=1,
        text::trim,
        "the text without white space at both ends",
    ),
    takes(
        "replace",
        3..=3,
        text::replace,
        "the text with each `from` replaced by `to`: `x|replace(from, to)`",
    ),
    takes(
        "indent",
        2..=2,
        text::indent,
        "every line but the first moved right by n spaces: `x|indent(4)`",
    ),
    takes(
        "split",
        2..=2,
        text::split,
        "the list of pieces between separators: `x|split(\",\")`",
    ),
    takes(
        "lines",
        1..=1,
        text::lines,
        "the list of lines, without line ends",
    ),
    takes(
        "join",
        1..=2,
        text::join,
        "the elements of a list as one text: `x|join(\",\")`",
    ),
    takes(
        "length",
        1..=1,
        text::length,
        "characters of a text, bytes of binary data, elements of a list, members of a map",
    ),
    takes(
        "quote",
        1..=1,
        text::quote,
        "the text in double quotes, escaped as in JSON",
    ),
    takes(
        "urlencode",
        1..=1,
        encode::url_encode,
        "the text or bytes as part of a URL: all but unreserved characters as %XX",
    ),
    Function {
        takes_undefined: true,
        ..takes(
            "default",
            2..=2,
            text::default,
            "the second value where the first is not defined or none",
        )
    },
    takes(
        "first",
        1..=1,
        text::first,
        "the first element of a list; it must have one",
    ),
    takes(
        "last",
        1..=1,
        text::last,
        "the last element of a list; it must have one",
    ),
    takes(
        "sort",
        1..=1,
        text::sort,
        "the list in order: all numbers or all texts",
    ),
    takes("reverse", 1..=1, text::reverse, "the list backwards"),
    takes(
        "unique",
        1..=1,
        text::unique,
        "the list with only the first of equal elements",
    ),
    takes(
        "range",
        1..=2,
        text::range,
        "whole numbers from 0, or from the first number, to below the last",
    ),
    takes(
        "keys",
        1..=1,
        structured::keys,
        "the names of a map's members, in order",
    ),
    takes(
        "items",
        1..=1,
        structured::items,
        "a map's members as [name, value], in order of their names",
    ),
    takes(
        "tojson",
        1..=1,
        structured::to_json,
        "the value as JSON without white space, members in order",
    ),
    takes(
        "fromjson",
        1..=1,
        structured::from_json,
        "the value that a JSON text holds; numbers keep their spelling",
    ),
    takes(
        "dockerconfigjson",
        3..=4,
        structured::docker_config,
        "the content of .dockerconfigjson: (server, user, password[, email])",
    ),
    takes(
        "b64encode",
        1..=1,
        encode::base64_encode,
        "the text or bytes in base64, with padding",
    ),
    takes(
        "b64decode",
        1..=1,
        encode::base64_decode,
        "the text or bytes that a base64 text holds",
    ),
    takes(
        "b64urlencode",
        1..=1,
        encode::base64_url_encode,
        "the text or bytes in URL-safe base64, without padding",
    ),
    takes(
        "b64urldecode",
        1..=1,
        encode::base64_url_decode,
        "the text or bytes that a URL-safe base64 text holds",
    ),
    takes(
        "hex",
        1..=1,
        encode::hex_encode,
        "the text or bytes as lower-case hexadecimal digits",
    ),
    takes(
        "hexdecode",
        1..=1,
        encode::hex_decode,
        "the text or bytes that hexadecimal digits hold",
    ),
    takes(
        "pem_split",
        1..=2,
        pem::split,
        "the list of PEM blocks, or of those with a label: `x|pem_split(\"CERTIFICATE\")`",
    ),
    takes("pem_leaf", 1..=1, pem::leaf, "the first certificate of a chain"),
    takes(
        "pem_chain",
        1..=1,
        pem::chain,
        "the certificates of a chain without the first",
    ),
    takes(
        "pem_key",
        1..=1,
        pem::key,
        "the private key in a PEM text; there must be exactly one",
    ),
    takes(
        "pem_bundle",
        1..=16,
        pem::bundle,
        "all PEM blocks of its arguments as one text, each block once",
    ),
];

static TESTS: [Test; 9] = [
    Test {
        takes_undefined: true,
        ..check(
            "defined",
            1,
            |_, args| Ok(!undefined(args)),
            "the name or member exists",
        )
    },
    Test {
        takes_undefined: true,
        ..check("undefined", 1, |_, args| Ok(undefined(args)), "it does not exist")
    },
    check(
        "none",
        1,
        |_, args| Ok(matches!(args[0], Value::Null)),
        "it is empty (JSON null)",
    ),
    check(
        "string",
        1,
        |_, args| Ok(matches!(args[0], Value::Text(_))),
        "it is text",
    ),
    check(
        "number",
        1,
        |_, args| Ok(matches!(args[0], Value::Int(_) | Value::Number(_))),
        "it is a number",
    ),
    check(
        "sequence",
        1,
        |_, args| Ok(matches!(args[0], Value::List(_))),
        "it is a list",
    ),
    check(
        "mapping",
        1,
        |_, args| Ok(matches!(args[0], Value::Map(_))),
        "it is a map",
    ),
    check(
        "startingwith",
        2,
        text::starts_with,
        "the text begins with another: `x is startingwith(\"a\")`",
    ),
    check(
        "endingwith",
        2,
        text::ends_with,
        "the text ends with another: `x is endingwith(\"a\")`",
    ),
];

const fn check(
    name: &'static str,
    arguments: usize,
    run: fn(&mut Meter, &[Value]) -> Outcome<bool>,
    doc: &'static str,
) -> Test {
    Test {
        name,
        doc,
        arguments,
        takes_undefined: false,
        run,
    }
}

fn undefined(args: &[Value]) -> bool {
    matches!(args[0], Value::Undefined(_))
}

/// Name and line of every function.
pub(super) static DOCUMENTATION: [(&str, &str); TABLE.len()] = {
    let mut rows = [("", ""); TABLE.len()];
    let mut index = 0;
    while index < rows.len() {
        rows[index] = (TABLE[index].name, TABLE[index].doc);
        index += 1;
    }
    rows
};

/// Name and line of every test.
pub(super) static TEST_DOCUMENTATION: [(&str, &str); TESTS.len()] = {
    let mut rows = [("", ""); TESTS.len()];
    let mut index = 0;
    while index < rows.len() {
        rows[index] = (TESTS[index].name, TESTS[index].doc);
        index += 1;
    }
    rows
};
