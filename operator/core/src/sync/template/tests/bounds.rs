//! Nothing written in the language can compute without end, fill memory or exhaust the stack.

use std::time::{Duration, Instant};

use super::*;

#[test]
fn nothing_can_run_away() {
    let bomb = format!(
        "{{% set x = 'aaaaaaaaaaaaaaaa' %}}{}{{{{ x|length }}}}",
        "{% set x = x ~ x %}".repeat(60)
    );
    let laughs = format!(
        "{{% set x = [1] %}}{}{{{{ x == x }}}}",
        "{% set x = [x, x, x, x, x, x, x, x] %}".repeat(25)
    );
    let captures = format!(
        "{{% set x %}}y{{% endset %}}{}",
        "{% set x %}{{ x }}{{ x }}{% endset %}".repeat(60)
    );
    let text = "z".repeat(40_000);
    let raw =
        format!("{{% for a in range(9999) %}}{{% for b in range(9999) %}}{text}{{% endfor %}}{{% endfor %}}");
    let hidden = format!("{{% set h %}}{raw}{{% endset %}}");
    let growing = format!("{{% set x = '{text}' %}}{{{{ x|replace('z', x)|length }}}}");
    let wide = format!(
        "{{% set x = '{text}' %}}{{% for i in range(9999) %}}{{{{ '' if x in 'a' ~ x else '' }}}}{{% endfor %}}"
    );
    let deep = format!("{{{{ '{}1{}'|fromjson }}}}", "[".repeat(40), "]".repeat(40));
    let long_name = format!("{{% for {text} in range(10000) %}}{{% endfor %}}");
    let nothing = |statement: &str| {
        format!(
            "{{% for i in range(9999) %}}{}{{% endfor %}}",
            statement.repeat(1_000)
        )
    };
    let started = Instant::now();
    for source in [
        bomb.as_str(),
        &laughs,
        &captures,
        &raw,
        &hidden,
        &growing,
        &wide,
        "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
        "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}",
        "{{ range(1000000000) }}",
        "{{ range(-9000000000000000000, 9000000000000000000) }}",
        "{% set r = range(10000) %}{{ r|unique|length }}",
        "{{ range(10000)|join('aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa') }}",
        &deep,
        &long_name,
        &nothing("{% set x %}{% endset %}"),
        &nothing("{% with %}{% endwith %}"),
    ] {
        assert_stopped(source);
    }
    // Unbounded, any of them would take hours or all memory.
    assert!(
        started.elapsed() < Duration::from_mins(2),
        "{:?}",
        started.elapsed()
    );
    assert!(
        problem("{{ 'x' * 1000000000 }}")
            .to_string()
            .contains("whole number")
    );
    assert!(
        problem("{{ [1] * 1000000000 }}")
            .to_string()
            .contains("whole number")
    );
}

#[test]
fn what_reads_a_value_pays_for_it_however_little_it_gives() {
    let text = "z".repeat(40_000);
    let number = "{% set x = ('0.' ~ x|replace('z', '0'))|fromjson %}";
    let names = r#"{% set x = ('{"' ~ x ~ '":1}')|fromjson %}"#;
    for (before, statement) in [
        ("", "{% set y = 'a'|replace(x, '') %}"),
        ("", "{% set y = 'a'|split(x) %}"),
        ("", "{% set y = x in 'a' %}"),
        ("", "{% set y = x in {} %}"),
        ("", "{% set y = {}[x] is defined %}"),
        ("", "{% set y = {x: 1} %}"),
        ("", "{% set y = dockerconfigjson('s', x, 'p')|length %}"),
        (
            "",
            "{% set y = pem_split('-----BEGIN A-----\n-----END A-----', x) %}",
        ),
        (number, "{% if x %}{% endif %}"),
        (number, "{% set y = x == x %}"),
        (names, "{% set y = x == x %}"),
    ] {
        assert_stopped(&format!(
            "{{% set x = '{text}' %}}{before}{{% for i in range(9999) %}}{statement}{{% endfor %}}"
        ));
    }
}

#[test]
fn the_templates_of_a_secret_share_one_budget() {
    let loops = |turns: u32| {
        format!("{{% for i in range({turns}) %}}{{% for j in range(10) %}}{{% endfor %}}{{% endfor %}}")
    };
    let text = "z".repeat(20_000);
    let reads = format!("{{% for i in range(900) %}}{{% set x = '{text}' %}}{{% endfor %}}");
    for (source, problem) in [
        (loops(9_000), TemplateProblem::StepLimit),
        (reads, TemplateProblem::WorkLimit),
    ] {
        let mut rendering = Rendering::new(values());
        let (first, second) = (
            compile("first", &source).unwrap(),
            compile("second", &source).unwrap(),
        );
        assert!(rendering.render(&first).is_ok(), "{source:.60}");
        let fault = rendering.render(&second).err().expect("the budget is used up");
        assert_eq!((fault.template.as_str(), fault.problem), ("second", problem));
    }
}

#[test]
fn the_sources_of_a_secret_share_one_limit() {
    let mut compiler = Compiler::default();
    let source = "x".repeat(MAX_SOURCES / 8);
    for _ in 0..8 {
        assert!(compiler.compile("t", &source).is_ok());
    }
    let fault = compiler.compile("t", "x").err().expect("they are too long");
    assert_eq!(fault.problem, TemplateProblem::SourceLimit);
}

#[test]
fn no_source_is_too_deep_for_the_stack() {
    let many = |text: &str| text.repeat(MAX_SOURCE / text.len() - 8);
    let wrap = |open: &str, close: &str, n: usize| format!("{}1{}", open.repeat(n), close.repeat(n));
    for source in [
        format!("{{{{ {}1 }}}}", many("not ")),
        format!("{{{{ {}1 }}}}", many("-")),
        format!("{{{{ {}1 }}}}", many("1 if 1 else ")),
        format!("{{{{ 1{} }}}}", many("~1")),
        format!("{{{{ x{} }}}}", many("|trim")),
        format!("{{{{ x{} }}}}", many(".a")),
        format!("{{{{ {} }}}}", wrap("(", ")", 20_000)),
        format!("{{{{ {} }}}}", wrap("[", "]", 20_000)),
        format!("{{{{ {} }}}}", wrap("{1:", "}", 10_000)),
        wrap("{% if 1 %}", "{% endif %}", 2_000),
        wrap("{% set x %}", "{% endset %}", 2_000),
        wrap("{% with %}", "{% endwith %}", 2_000),
        wrap("{% with a = 1 %}", "{% endwith %}", 1_500),
        wrap("{% filter trim %}", "{% endfilter %}", 1_500),
        wrap("{% for a in b %}", "{% endfor %}", 1_500),
        format!("{{% if 1 %}}{}{{% endif %}}", "{% elif 1 %}".repeat(3_000)),
        wrap(
            &format!("{{% if 1 %}}{}", "{% elif 1 %}".repeat(6)),
            "{% endif %}",
            19,
        ),
        many("{% if 1 %}"),
    ] {
        let fault = compile("t", &source)
            .err()
            .unwrap_or_else(|| panic!("{source:.40} must be refused"));
        assert_eq!(fault.problem, TemplateProblem::NestingLimit, "{source:.40}");
    }
    let long = "x".repeat(MAX_SOURCE + 1);
    assert_eq!(problem(&long), TemplateProblem::SourceLimit);
}

#[test]
fn the_deepest_accepted_source_fits_a_worker_thread() {
    let nested = format!(
        "{}{{{{ {}1{} }}}}{}",
        "{% if 1 %}".repeat(MAX_NESTING),
        "[".repeat(MAX_NESTING),
        "]|first".repeat(MAX_NESTING),
        "{% endif %}".repeat(MAX_NESTING)
    );
    let alternatives = format!(
        "{}1{}",
        format!(
            "{{% if 0 %}}{}{{% elif 1 %}}",
            "{% elif 0 %}".repeat(MAX_TAG_OPERATORS / MAX_NESTING - 1)
        )
        .repeat(MAX_NESTING),
        "{% endif %}".repeat(MAX_NESTING)
    );
    let chain = format!("{{{{ 1{} }}}}", "~1".repeat(MAX_TAG_OPERATORS));
    let negations = format!("{{{{ {}1 }}}}", "not ".repeat(MAX_TAG_OPERATORS));
    // Half of what a worker of the runtime has.
    let run = move || {
        [nested, chain, negations, alternatives]
            .map(|source| try_render(&source).map_err(|fault| fault.to_string()))
    };
    let results = std::thread::Builder::new()
        .stack_size(1024 * 1024)
        .spawn(run)
        .unwrap()
        .join()
        .unwrap();
    assert_eq!(results[0], Ok("1".to_owned()));
    assert_eq!(results[1], Ok("1".repeat(101)));
    assert_eq!(results[2], Ok("true".to_owned()));
    assert_eq!(results[3], Ok("1".to_owned()));
}

#[test]
fn comments_and_long_templates_are_not_mistaken_for_deep_ones() {
    assert_eq!(render(&"a{# c #}".repeat(2_000)), "a".repeat(2_000));
    assert_eq!(
        render(&"{% set x = 1 %}{% if x %}b{% endif %}".repeat(500)),
        "b".repeat(500)
    );
    assert_eq!(
        render(&"{% if 0 %}{% elif 1 %}b{% endif %}".repeat(1_000)),
        "b".repeat(1_000)
    );
}

#[test]
fn output_is_cut_off_at_what_a_secret_holds() {
    let filler = |n: usize| format!("{{% for i in range({n}) %}}{}{{% endfor %}}", "x".repeat(1024));
    assert_eq!(render(&filler(1024)).len(), MAX_OUTPUT);
    assert_eq!(
        problem(&format!("{}y", filler(1024))),
        TemplateProblem::OutputLimit
    );
}

/// Runs into a limit.
fn assert_stopped(source: &str) {
    let fault = try_render(source).err();
    let stopped = fault.as_ref().is_some_and(|fault| fault.problem.is_limit());
    assert!(stopped, "{source:.60}: {fault:?}");
}
