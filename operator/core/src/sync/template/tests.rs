//! What the language does, and that nothing written in it can run away, reach outside or show a value.

use proptest::prelude::*;

use super::*;

mod bounds;

fn values() -> SecretMap {
    [
        ("user", "ada"),
        ("password", "p\"w:d"),
        ("api-key", "k1"),
        ("hosts", "b,a,c"),
        (
            "doc",
            r#"{"n":1.0,"big":12345678901234567890,"i":7,"l":["x","y"],"o":{"k":"v"},"z":null,"t":true}"#,
        ),
        ("empty", ""),
    ]
    .map(|(name, value)| (name.to_owned(), SecretBytes::from(value)))
    .into_iter()
    .chain([("bin".to_owned(), SecretBytes::new(vec![0xff, 0x00, 0x10]))])
    .collect()
}

fn compile(name: &str, source: &str) -> Result<Template, TemplateFault> {
    Compiler::default().compile(name, source)
}

fn try_render(source: &str) -> Result<String, TemplateFault> {
    let template = compile("t", source)?;
    let rendered = Rendering::new(values()).render(&template)?;
    Ok(rendered.expose_str().expect("templates write text").to_owned())
}

fn render(source: &str) -> String {
    try_render(source).unwrap_or_else(|fault| panic!("{source}: {fault}"))
}

fn problem(source: &str) -> TemplateProblem {
    match try_render(source) {
        Ok(text) => panic!("{source} must fail and gave {text:.80}"),
        Err(fault) => fault.problem,
    }
}

#[test]
fn values_are_reached_by_name_and_by_key() {
    assert_eq!(
        render("{{ user }}:{{ secret.user }}:{{ secret['api-key'] }}"),
        "ada:ada:k1"
    );
    assert_eq!(render("{% set k = 'api-' ~ 'key' %}{{ secret[k] }}"), "k1");
    assert_eq!(
        problem("{{ missing }}"),
        TemplateProblem::Undefined("missing".into())
    );
    assert_eq!(
        problem("{{ secret['no-such'] }}"),
        TemplateProblem::Undefined("no-such".into())
    );
    assert_eq!(
        problem("{{ secret.nope.deeper }}"),
        TemplateProblem::Undefined("nope".into())
    );
}

#[test]
fn text_comes_out_as_it_was_written() {
    assert_eq!(render("a\n\n"), "a\n\n");
    assert_eq!(render("<b>{{ '<&\">' }}</b>"), "<b><&\"></b>");
    assert_eq!(
        render("a {#- gone -#} b{% raw %}{{ x }}{% endraw %}"),
        "ab{{ x }}"
    );
    assert_eq!(render("{{ 1 }}{{ true }}{{ empty }}"), "1true");
}

#[test]
fn statements() {
    assert_eq!(
        render("{% if user == 'ada' and not empty %}y{% else %}n{% endif %}"),
        "y"
    );
    assert_eq!(render("{% if 1 > 2 %}a{% elif 2 >= 2 %}b{% endif %}"), "b");
    assert_eq!(
        render(
            "{% for h in hosts|split(',')|sort %}{{ loop.index }}{{ h }}{{ '' if loop.last else ';' }}{% endfor %}"
        ),
        "1a;2b;3c"
    );
    assert_eq!(
        render("{% for x in [1,2,3,4] if x % 2 == 0 %}{{ x }}{{ loop.length }}{% endfor %}"),
        "2242"
    );
    assert_eq!(render("{% for x in [] %}a{% else %}none{% endfor %}"), "none");
    assert_eq!(
        render("{% for k, v in {'b': 1, 'a': 2}|items %}{{ k }}{{ v }}{% endfor %}"),
        "a2b1"
    );
    assert_eq!(render("{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}"), "3");
    assert_eq!(render("{% set c %}x{{ user }}{% endset %}{{ c|upper }}"), "XADA");
    assert_eq!(render("{% filter upper|b64encode %}ab{% endfilter %}"), "QUI=");
    assert_eq!(
        render("{% set x = 1 %}{% for i in [1] %}{% set x = 2 %}{% endfor %}{{ x }}"),
        "1"
    );
}

#[test]
fn operators() {
    assert_eq!(render("{{ (user ~ ':' ~ password)|b64encode }}"), "YWRhOnAidzpk");
    assert_eq!(
        render("{{ 7 // 2 }} {{ 7 % 2 }} {{ -3 + 1 }} {{ 2 * 3 - 1 }}"),
        "3 1 -2 5"
    );
    assert_eq!(
        render("{{ 'a' in 'cat' }} {{ 'x' not in ['y'] }} {{ 'k' in {'k': 1} }}"),
        "true true true"
    );
    assert_eq!(render("{{ 1 < 2 <= 2 }} {{ '1' == 1 }}"), "true false");
    assert_eq!(render("{{ [10, 20][-1] }}{{ {'a': {'b': 5}}.a.b }}"), "205");
    for (source, word) in [
        ("{{ 'a' + 'b' }}", "`~`"),
        ("{{ 1 // 0 }}", "divides"),
        ("{{ 'a' < 1 }}", "order"),
    ] {
        assert!(problem(source).to_string().contains(word), "{source}");
    }
}

#[test]
fn text_functions() {
    for (source, expected) in [
        ("{{ 'Straße'|upper }}{{ 'ÄB'|lower }}", "STRASSEäb"),
        ("{{ ' x\n'|trim }}{{ 'aXbX'|replace('X', '--') }}", "xa--b--"),
        ("{{ 'a\n\nb\n'|indent(2) }}", "a\n\n  b\n"),
        ("{{ 'a\r\nb'|lines|join('|') }}{{ ['x', 1]|join }}", "a|bx1"),
        ("{{ 'äöü'|length }}{{ bin|length }}{{ [1]|length }}", "331"),
        ("{{ password|quote }}", "\"p\\\"w:d\""),
        ("{{ '\n\t\u{1}'|quote }}", "\"\\n\\t\\u0001\""),
        ("{{ 'a b/ü'|urlencode }}", "a%20b%2F%C3%BC"),
        (
            "{{ nope|default('d') }}{{ user|default('d') }}{{ none|default('n') }}",
            "dadan",
        ),
        (
            "{{ [3,1,2]|sort|join }}{{ [1,2]|reverse|first }}{{ [1,1,2]|unique|length }}{{ [1,2]|last }}",
            "123222",
        ),
        ("{{ range(3)|join(',') }}{{ range(5, 3)|length }}", "0,1,20"),
        (
            "{{ nope is defined }}{{ user is defined }}{{ nope is undefined }}",
            "falsetruetrue",
        ),
        (
            "{{ user is startingwith('a') }}{{ user is not endingwith('a') }}",
            "truefalse",
        ),
        (
            "{{ none is none }}{{ [] is sequence }}{{ {} is mapping }}{{ 1 is number }}{{ '' is string }}",
            "truetruetruetruetrue",
        ),
        ("{{ upper('x') }}{{ replace('aa', 'a', 'b') }}", "Xbb"),
    ] {
        assert_eq!(render(source), expected, "{source}");
    }
}

#[test]
fn a_list_without_an_order_is_refused_and_not_sorted_half() {
    let mixed = "1, 'a', 3, ".repeat(20);
    assert!(
        problem(&format!("{{{{ [{mixed}]|sort }}}}"))
            .to_string()
            .contains("order")
    );
}

#[test]
fn json_keeps_numbers_as_they_were_written() {
    assert_eq!(
        render("{% set d = doc|fromjson %}{{ d.n }} {{ d.big }} {{ d.i + 1 }}"),
        "1.0 12345678901234567890 8"
    );
    assert_eq!(
        render("{{ doc|fromjson|tojson }}"),
        r#"{"big":12345678901234567890,"i":7,"l":["x","y"],"n":1.0,"o":{"k":"v"},"t":true,"z":null}"#
    );
    assert_eq!(
        render(r#"{{ {"u": user, "p": password}|tojson }}"#),
        r#"{"p":"p\"w:d","u":"ada"}"#
    );
    assert_eq!(
        render("{{ (doc|fromjson).o|keys|join }}{{ (doc|fromjson).l[1] }}"),
        "ky"
    );
    assert_eq!(
        problem("{{ user|fromjson }}"),
        TemplateProblem::Unfit("a text is not valid JSON")
    );
    assert_eq!(
        problem(r#"{{ '{"a":1,"a":2}'|fromjson }}"#),
        TemplateProblem::Unfit("a JSON object names the same member twice")
    );
}

#[test]
fn binary_values_are_encoded_and_never_printed() {
    assert_eq!(
        render("{{ bin|b64encode }} {{ bin|hex }} {{ bin|b64urlencode }}"),
        "/wAQ ff0010 _wAQ"
    );
    assert_eq!(
        render("{{ '/wAQ'|b64decode|hex }}{{ 'aGk'|b64urldecode }}{{ '6869'|hexdecode }}"),
        "ff0010hihi"
    );
    for source in [
        "{{ bin }}",
        "{{ bin ~ 'x' }}",
        "{{ bin|upper }}",
        "{{ [bin]|tojson }}",
        "{{ bin|quote }}",
    ] {
        assert!(problem(source).to_string().contains("not UTF-8"), "{source}");
    }
}

#[test]
fn base64_of_long_values_has_padding_at_its_end_only() {
    let text = "x".repeat(3 * 256 * 2 + 1);
    let source = format!("{{{{ '{text}'|b64encode|b64decode == '{text}' }}}}");
    assert_eq!(render(&source), "true");
}

#[test]
fn docker_config_is_what_kubernetes_expects() {
    let text = render("{{ dockerconfigjson('reg.example', user, password, 'a@b') }}");
    let config: serde_json::Value = serde_json::from_str(&text).unwrap();
    let entry = &config["auths"]["reg.example"];
    assert_eq!(entry["username"], "ada");
    assert_eq!(entry["password"], "p\"w:d");
    assert_eq!(entry["auth"], "YWRhOnAidzpk");
    assert_eq!(entry["email"], "a@b");
    assert!(
        problem("{{ dockerconfigjson('r', 'a:b', 'c') }}")
            .to_string()
            .contains("`:`")
    );
}

#[test]
fn pem_texts_are_taken_apart_and_put_together() {
    let block = |label: &str, body: &str| format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----");
    let (leaf, ca, key) = (
        block("CERTIFICATE", "AA"),
        block("CERTIFICATE", "BB"),
        block("EC PRIVATE KEY", "KK"),
    );
    let chain = format!("subject=x\n{leaf}\nissuer=y\n{ca}\n{key}");
    let values = || {
        let values = [("chain", &chain), ("ca", &ca)];
        values.map(|(name, value)| (name.to_owned(), SecretBytes::from(value.as_str())))
    };
    let run = |source: &str| {
        let template = compile("t", source).unwrap();
        let rendered = Rendering::new(values().into()).render(&template);
        let rendered = rendered.unwrap_or_else(|f| panic!("{f}"));
        rendered.expose_str().unwrap().to_owned()
    };
    assert_eq!(run("{{ chain|pem_leaf }}"), format!("{leaf}\n"));
    assert_eq!(run("{{ chain|pem_chain }}"), format!("{ca}\n"));
    assert_eq!(run("{{ chain|pem_key }}"), format!("{key}\n"));
    assert_eq!(
        run("{{ chain|pem_split|length }}{{ chain|pem_split('CERTIFICATE')|length }}"),
        "32"
    );
    assert_eq!(
        run("{{ pem_bundle(chain|pem_split('CERTIFICATE'), ca) }}"),
        format!("{leaf}\n{ca}\n")
    );
    for source in [
        "{{ user|pem_split }}",
        "{{ '-----BEGIN X-----'|pem_split }}",
        "{{ user|pem_key }}",
    ] {
        assert!(problem(source).to_string().contains("PEM"), "{source}");
    }
}

#[test]
fn what_the_language_leaves_out_is_refused_when_compiled() {
    for source in [
        "{% include 'x' %}",
        "{% import 'x' as y %}",
        "{% extends 'x' %}",
        "{% block a %}{% endblock %}",
        "{% macro m() %}{% endmacro %}",
        "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        "{% do user %}",
        "{% autoescape true %}{% endautoescape %}",
        "{{ user[1:2] }}",
        "{{ user.upper() }}",
        "{{ 2 ** 3 }}",
        "{{ 1 / 2 }}",
        "{{ 1.5 }}",
        "{{ 99999999999999999999 }}",
        "{{ 'x' if user }}",
        "{{ join(*[user]) }}",
        "{{ user|default(value='x') }}",
        "{{ user",
        "{% if %}",
    ] {
        let fault = compile("t", source)
            .err()
            .unwrap_or_else(|| panic!("{source} must be refused"));
        assert!(
            matches!(
                fault.problem,
                TemplateProblem::Syntax | TemplateProblem::Unsupported(_)
            ),
            "{source}: {fault}"
        );
    }
    for source in [
        "{{ now() }}",
        "{{ env('HOME') }}",
        "{{ random() }}",
        "{{ x|getHostByName }}",
        "{{ lookup('a') }}",
        "{{ x is odd }}",
    ] {
        let fault = compile("t", source)
            .err()
            .unwrap_or_else(|| panic!("{source} must be refused"));
        assert!(
            matches!(fault.problem, TemplateProblem::UnknownFunction(_)),
            "{source}: {fault}"
        );
    }
    assert_eq!(problem("{{ upper() }}"), TemplateProblem::Arguments("upper"));
}

#[test]
fn no_name_forges_a_line() {
    let fault = compile("labels.a\nINFO", "{{ secret['b\\nINFO'] }}").unwrap();
    let fault = Rendering::new(values()).render(&fault).err().unwrap();
    assert_eq!(
        fault.to_string(),
        r"template `labels.a\nINFO`, line 1: `b\nINFO` is not defined"
    );
}

#[test]
fn faults_name_template_and_line_and_no_value() {
    let values = || [("s".to_owned(), SecretBytes::from("canary-4711"))].into();
    for source in [
        "a\n\n{{ s|fromjson }}",
        "\n\n{{ s + 1 }}",
        "\n\n{{ s|hexdecode }}",
        "\n\n{{ {}[s] }}",
        "\n\n{{ secret[s] }}",
        "\n\n{{ s.x }}",
        "\n\n{{ s|pem_leaf }}",
        "\n\n{% for a, b in [s] %}{% endfor %}",
        "\n\n{{ [s]|sort ~ s }}",
        "\n\n{{ (\"{\\\"a\\\":1,\\\"a\\\":\\\"\" ~ s ~ \"\\\"}\")|fromjson }}",
    ] {
        let fault = compile("app.conf", source)
            .and_then(|template| Rendering::new(values()).render(&template))
            .err()
            .expect("must fail");
        assert_eq!(fault.line, 3, "{source}: {fault}");
        let shown = format!("{fault} {fault:?} {}", Fault::from(fault.clone()));
        assert!(!shown.contains("canary") && !shown.contains("4711"), "{shown}");
        assert!(shown.contains("app.conf"), "{shown}");
    }
}

#[test]
fn reasons_tell_a_mistake_from_a_limit() {
    let reason = |source: &str| Fault::from(try_render(source).expect_err("must fail")).reason;
    assert_eq!(reason("{{ nope }}"), Reason::TemplateFailed);
    assert_eq!(reason("{{ range(999999) }}"), Reason::TemplateLimit);
}

#[test]
fn every_function_and_test_is_documented_and_known() {
    let known = |source: String| {
        !matches!(
            compile("t", &source).err().map(|fault| fault.problem),
            Some(TemplateProblem::UnknownFunction(_) | TemplateProblem::Syntax)
        )
    };
    for (name, doc) in FUNCTIONS {
        assert!(!doc.is_empty() && known(format!("{{{{ x|{name} }}}}")), "{name}");
    }
    for (name, doc) in TESTS {
        assert!(
            !doc.is_empty() && known(format!("{{{{ x is {name} }}}}")),
            "{name}"
        );
    }
    let distinct: std::collections::BTreeSet<_> = FUNCTIONS.iter().map(|(name, _)| name).collect();
    assert_eq!(distinct.len(), FUNCTIONS.len());
}

proptest! {
    #[test]
    fn no_source_panics(source in r"(\{\{|\}\}|\{%|%\}| |if|for|in|set|x|\||~|\(|\)|\[|\]|'a'|1|not|else|endif|endfor|-|\.|trim|tojson){0,40}") {
        let _ = try_render(&source);
    }

    #[test]
    fn rendering_is_deterministic(user: String, other: Vec<u8>) {
        let template = compile("t", "{{ {'u': user, 'o': other|b64encode}|tojson }}{{ secret|length }}").unwrap();
        let values = || -> SecretMap {
            [("user".to_owned(), SecretBytes::from(user.clone())), ("other".to_owned(), SecretBytes::new(other.clone()))].into()
        };
        let first = Rendering::new(values()).render(&template).unwrap();
        prop_assert!(first.same_as(Rendering::new(values()).render(&template).unwrap().expose()));
    }

    #[test]
    fn quoting_is_json(text: String) {
        let values: SecretMap = [("v".to_owned(), SecretBytes::from(text.clone()))].into();
        let rendered = Rendering::new(values).render(&compile("t", "{{ v|quote }}").unwrap()).unwrap();
        prop_assert_eq!(serde_json::from_slice::<String>(rendered.expose()).unwrap(), text);
    }
}
