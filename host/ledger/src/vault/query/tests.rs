//! The language, its meaning, order and pages.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::fixtures::reference;
use crate::rules::Rule;
use crate::time::Timestamp;
use crate::tx::MAX_NAME;

fn row(number: u32) -> Row {
    let data = [
        ("quantity".to_owned(), Value::Number(Number::from(u64::from(number) * 100))),
        ("currency".to_owned(), Value::text(if number.is_multiple_of(2) { "GBP" } else { "USD" })),
        ("issuer".to_owned(), Value::text("O=Bank, L=London, C=GB")),
        ("due".to_owned(), Value::Time("2026-03-01T00:00:00Z".parse().unwrap())),
    ];
    Row {
        reference: reference(number),
        type_name: "cash/Cash".to_owned(),
        status: Status::Unconsumed,
        recorded: Timestamp::from_nanos(u64::from(number) * 1_000_000_000),
        consumed: None,
        notary: "O=Notary, L=London, C=GB".to_owned(),
        lock: None,
        relevant: true,
        constraint: "signature".to_owned(),
        participants: ["O=Ann, L=London, C=GB".to_owned()].into(),
        external_ids: BTreeSet::new(),
        data: data.into(),
    }
}

fn truth(expression: &str) -> Truth {
    evaluate(&parse(expression).unwrap(), &row(4))
}

#[test]
fn expressions_mean_what_sql_means() {
    for expression in [
        "quantity >= 100 and currency = 'GBP' and (issuer = 'O=Bank, L=London, C=GB' or owner in ('x'))",
        "quantity = 400",
        "quantity = 400.0",
        "400 = quantity",
        "quantity between 400 and 400",
        "quantity not between 401 and 500",
        "quantity in (1, 400, null)",
        "currency like 'G_P'",
        "currency like '%'",
        "currency ilike 'gb%'",
        "currency not like 'g%'",
        "owner is null",
        "quantity is not null",
        "consumed is null and lock is null",
        "not quantity = 1",
        "NOT quantity < 1 AND currency = 'GBP'",
        // `and` binds closer than `or`, `not` closer than both.
        "quantity = 400 or quantity = 1 and currency = 'USD'",
        "not quantity = 1 or quantity = 2",
        "due = '2026-03-01T01:00:00+01:00'",
        "due > '2026-02-28T23:59:59Z'",
        "recorded < '2026-01-01T00:00:00Z'",
        "ref = 'e52d9c508c502347344d8c07ad91cbd6068afc75ff6292f062a09ca381c89e71:0' or notary like 'O=Notary%'",
        "'it''s' = 'it''s'",
        "quantity > -1",
        "true = true",
    ] {
        assert_eq!(truth(expression), Some(true), "{expression}");
    }
    for expression in [
        "quantity = 1",
        "quantity in (1, 2)",
        "quantity in ()",
        "currency like 'gbp'",
        "owner is not null",
        "currency = 'gbp'",
        "not quantity = 400",
    ] {
        assert_eq!(truth(expression), Some(false), "{expression}");
    }
    for expression in [
        "owner = 'x'",
        "not owner = 'x'",
        "owner != 'x'",
        "quantity = null",
        "null = null",
        "quantity not in (1, null)",
        "quantity in (1, null)",
        "owner in ('x')",
        "owner like '%'",
        "quantity like '4%'",
        "quantity between 1 and null",
        "currency = 5",
        "owner = 'x' and quantity = 400",
        "owner = 'x' or quantity = 1",
        "due = 'soon'",
    ] {
        assert_eq!(truth(expression), None, "{expression}");
    }
    assert_eq!(truth("owner = 'x' or quantity = 400"), Some(true));
    assert_eq!(truth("owner = 'x' and quantity = 1"), Some(false));
    assert_eq!(truth("quantity between 401 and null"), Some(false));
}

#[test]
fn a_wrong_expression_is_refused_where_it_is_wrong() {
    let long = "a = 1 or ".repeat(2000);
    let deep = format!("{}a = 1", "(".repeat(MAX_DEPTH + 1));
    let nots = format!("{}a = 1", "not ".repeat(MAX_DEPTH + 1));
    let list = format!("a in ({})", vec!["1"; MAX_LIST + 1].join(","));
    for (expression, position) in [
        ("", 0),
        ("   ", 3),
        ("quantity", 8),
        ("quantity >", 10),
        ("quantity > > 1", 11),
        ("quantity = 1 currency = 'x'", 13),
        ("quantity = 1 and", 16),
        ("quantity = 1)", 12),
        ("(quantity = 1", 13),
        ("quantity = 'x", 11),
        ("quantity ! 1", 9),
        ("quantity <> 1", 10),
        ("quantity == 1", 10),
        ("quantity = 1e5", 11),
        ("quantity = 12abc", 11),
        ("quantity = 1.2.3", 11),
        ("quantity between 1 or 2", 19),
        ("quantity between 1", 18),
        ("quantity in 1", 12),
        ("quantity in (1 2)", 15),
        ("quantity in (1,)", 15),
        ("quantity is 1", 12),
        ("quantity is not 1", 16),
        ("quantity not 1", 13),
        ("quantity not = 1", 13),
        ("currency like 5", 14),
        ("currency like owner", 14),
        ("and = 1", 0),
        ("quantity = and", 11),
        ("quantity ; 1", 9),
        ("recorded > 5", 11),
        ("recorded > 'soon'", 11),
        ("recorded in ('2026-01-01T00:00:00Z', 'x')", 37),
        ("'x' = consumed", 6),
        ("\"\" = 1", 0),
        // Counted in characters, not in bytes.
        ("name = 'äöü' ? 1", 13),
        ("\u{1f600}", 0),
        (long.as_str(), MAX_EXPRESSION),
        (deep.as_str(), MAX_DEPTH),
        (nots.as_str(), 4 * MAX_DEPTH),
        (list.as_str(), 6 + 2 * MAX_LIST),
    ] {
        let refused = parse(expression).unwrap_err();
        let shown: String = expression.chars().take(60).collect();
        assert_eq!(refused.rule(), Rule::QueryInvalid);
        assert_eq!(refused.details()["position"], position.to_string(), "{shown}: {refused}");
    }
    parse(&format!("{}a = 1{}", "(".repeat(MAX_DEPTH), ")".repeat(MAX_DEPTH))).unwrap();
}

#[test]
fn names_in_quotes_are_never_keywords_or_built_in() {
    let mut row = row(1);
    row.data.insert("in".to_owned(), Value::Number(Number::from(5_u64)));
    row.data.insert("ref".to_owned(), Value::text("mine"));
    row.data.insert("a b".to_owned(), Value::Bool(true));
    let truth = |expression: &str| evaluate(&parse(expression).unwrap(), &row);
    assert_eq!(truth("\"in\" = 5"), Some(true));
    assert_eq!(truth("\"ref\" = 'mine' and ref != 'mine'"), Some(true));
    assert_eq!(truth("\"a b\" = true"), Some(true));
}

#[test]
fn what_has_no_name_in_the_language_is_in_the_tree() {
    let row = row(1);
    let names = |names: &[&str]| -> BTreeSet<String> { names.iter().map(|name| (*name).to_owned()).collect() };
    let has = |of| evaluate(&Criterion::HasAny { set: Set::Participants, of }, &row);
    assert_eq!(has(names(&["O=Ann, L=London, C=GB", "x"])), Some(true));
    assert_eq!(has(names(&["x"])), Some(false));
    assert_eq!(has(names(&[])), Some(false));
    let exactly = |these| evaluate(&Criterion::IsExactly { set: Set::Participants, these }, &row);
    assert_eq!(exactly(names(&["O=Ann, L=London, C=GB"])), Some(true));
    assert_eq!(exactly(names(&["O=Ann, L=London, C=GB", "x"])), Some(false));
    assert_eq!(evaluate(&Criterion::IsEmpty { set: Set::ExternalIds }, &row), Some(true));
    assert_eq!(evaluate(&Criterion::IsEmpty { set: Set::Participants }, &row), Some(false));
    let none = Criterion::IsExactly { set: Set::ExternalIds, these: names(&[]) };
    assert_eq!(evaluate(&none, &row), Some(false));
    let relevant = Criterion::Compare {
        left: Operand::Field(Field::Builtin(Builtin::Relevant)),
        op: CompareOp::Equal,
        right: Operand::Literal(Value::Bool(true)),
    };
    assert_eq!(evaluate(&relevant, &row), Some(true));
}

#[test]
fn aggregates_count_and_sum_by_group() {
    let rows: Vec<Row> = (0..5).map(row).collect();
    let field = |name: &str| Field::Data(name.to_owned());
    let number = |value: u64| Value::Number(Number::from(value));
    let wanted = [
        Aggregate::Count,
        Aggregate::Sum(field("quantity")),
        Aggregate::Minimum(field("quantity")),
        Aggregate::Maximum(field("quantity")),
        Aggregate::Average(field("quantity")),
    ];
    let groups = aggregate(&Query::default(), &rows, &wanted, &[field("currency")]).unwrap();
    assert_eq!(groups.len(), 2);
    assert_eq!(groups[0].by, [Value::text("GBP")]);
    assert_eq!(groups[0].values, [number(3), number(600), number(0), number(400), number(200)]);
    assert_eq!(groups[1].values, [number(2), number(400), number(100), number(300), number(200)]);
    let nothing = Query { types: Some(vec![]), ..Query::default() };
    let groups = aggregate(&nothing, &rows, &wanted, &[]).unwrap();
    assert_eq!(groups[0].values, [number(0), Value::Null, Value::Null, Value::Null, Value::Null]);
    assert!(aggregate(&nothing, &rows, &wanted, &[field("currency")]).unwrap().is_empty());
    let missing = aggregate(&Query::default(), &rows, &[Aggregate::Sum(field("owner"))], &[]).unwrap();
    assert_eq!(missing[0].values, [Value::Null]);
}

#[test]
fn sort_orders_are_read() {
    let keys = SortKey::parse_list("quantity:desc, recorded ,\"in\":asc").unwrap();
    let expected = [
        (Field::Data("quantity".to_owned()), true),
        (Field::Builtin(Builtin::Recorded), false),
        (Field::Data("in".to_owned()), false),
    ];
    assert_eq!(keys.into_iter().map(|key| (key.field, key.descending)).collect::<Vec<_>>(), expected);
    for bad in ["", "a,", "a:up", "a b", "5", "'x'", "a,b,c,d,e,f,g,h,i"] {
        assert_eq!(SortKey::parse_list(bad).unwrap_err().rule(), Rule::QueryInvalid, "{bad}");
    }
}

#[test]
fn a_cursor_goes_on_with_its_own_query_only() {
    let rows: Vec<Row> = (0..5).map(row).collect();
    let query = Query {
        filter: parse("quantity >= 0 or owner is null").unwrap(),
        sort: SortKey::parse_list("currency:desc").unwrap(),
        limit: 2,
        ..Query::default()
    };
    let first = page(&query, &rows, None).unwrap();
    let cursor: Cursor = first.cursor.unwrap().to_string().parse().unwrap();
    assert_eq!(cursor.query().unwrap(), query);
    let larger = Query { limit: 3, ..query.clone() };
    assert_eq!(page(&larger, &rows, Some(&cursor)).unwrap().rows.len(), 3);
    let other = Query { status: StatusFilter::All, ..query.clone() };
    assert_eq!(page(&other, &rows, Some(&cursor)).unwrap_err().rule(), Rule::CursorInvalid);
    cursor.check_vault("O=Ann").unwrap();
    let of_ann: Cursor = cursor.within("O=Ann").to_string().parse().unwrap();
    of_ann.check_vault("O=Ann").unwrap();
    assert_eq!(of_ann.check_vault("O=Bob").unwrap_err().rule(), Rule::CursorInvalid);
    assert_eq!(page(&query, &rows, Some(&of_ann)).unwrap().rows.len(), 2);
    for bad in ["", "!", "AAAA", &"A".repeat(1 << 20)] {
        assert_eq!(bad.parse::<Cursor>().unwrap_err().rule(), Rule::CursorInvalid);
    }
    for limit in [0, MAX_LIMIT + 1] {
        let bad = Query { limit, ..query.clone() };
        assert_eq!(page(&bad, &rows, None).unwrap_err().rule(), Rule::QueryInvalid);
    }
}

/// PostgreSQL has no NUL character in texts, so no query comes to it with one, by whatever way.
#[test]
fn what_no_database_can_hold_is_not_asked_for() {
    for (asked, position) in
        [("note = 'a\0b'", "9"), ("\"a\0\" = 1", "2"), ("notary like '\0%'", "13"), ("a = 1\0", "5")]
    {
        let refused = parse(asked).unwrap_err();
        assert_eq!(
            (refused.rule(), refused.details()["position"].as_str()),
            (Rule::QueryInvalid, position),
            "{asked:?}"
        );
    }
    assert_eq!(SortKey::parse_list("\"a\0\"").unwrap_err().rule(), Rule::QueryInvalid);
    let of_type = |name: String| Query { types: Some(vec![name]), ..Query::default() }.check();
    of_type(format!("{0}/{0}", "x".repeat(MAX_NAME))).unwrap();
    for bad in [format!("{0}/{0}/", "x".repeat(MAX_NAME)), "cash/Ca\0sh".to_owned()] {
        let refused = of_type(bad).unwrap_err();
        assert_eq!((refused.rule(), refused.details()["field"].as_str()), (Rule::QueryInvalid, "types"));
    }
    // A cursor that somebody has made by himself. Data may have any text.
    let last = Row { notary: "a\0b".to_owned(), data: [("note".to_owned(), Value::text("a\0b"))].into(), ..row(1) };
    let gone_on = |field: Field| {
        let query = Query { sort: vec![SortKey { field, descending: false }], ..Query::default() };
        query.cursor_after(&last).to_string().parse::<Cursor>().and_then(|cursor| cursor.query())
    };
    gone_on(Field::Data("note".to_owned())).unwrap();
    assert_eq!(gone_on(Field::Builtin(Builtin::Notary)).unwrap_err().rule(), Rule::CursorInvalid);
    assert_eq!(gone_on(Field::Data("no\0te".to_owned())).unwrap_err().rule(), Rule::QueryInvalid);
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("a".to_owned()),
        Just("b".to_owned()),
        Just("c.d".to_owned()),
        Just("In".to_owned()),
        Just("ref".to_owned()),
        "[a-z_ä\"' ]{1,4}",
    ]
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        (-3_i64..4).prop_map(|number| Value::Number(Number::from(number))),
        Just(Value::Number(Number::parse("1.5").unwrap())),
        "[ab%_'\\\\ä]{0,3}".prop_map(Value::Text),
        (0_u64..3).prop_map(|second| Value::text(Timestamp::from_nanos(second * 1_000_000_000).to_string())),
    ]
}

fn operand() -> impl Strategy<Value = Operand> {
    prop_oneof![
        name().prop_map(|name| Operand::Field(Field::Data(name))),
        Just(Operand::Field(Field::Builtin(Builtin::Notary))),
        value().prop_map(Operand::Literal),
    ]
}

fn compare_op() -> impl Strategy<Value = CompareOp> {
    use CompareOp::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};
    proptest::sample::select(vec![Equal, NotEqual, Less, LessOrEqual, Greater, GreaterOrEqual])
}

fn criterion() -> impl Strategy<Value = Criterion> {
    let leaf =
        prop_oneof![
            (operand(), compare_op(), operand()).prop_map(|(left, op, right)| Criterion::Compare { left, op, right }),
            (operand(), operand(), operand(), any::<bool>())
                .prop_map(|(value, low, high, negated)| Criterion::Between { value, low, high, negated }),
            (operand(), proptest::collection::vec(operand(), 0..4), any::<bool>())
                .prop_map(|(value, list, negated)| Criterion::In { value, list, negated }),
            (operand(), "[ab%_'ä]{0,4}", any::<bool>(), any::<bool>()).prop_map(
                |(value, pattern, ignore_case, negated)| Criterion::Like { value, pattern, ignore_case, negated }
            ),
            (operand(), any::<bool>()).prop_map(|(value, negated)| Criterion::IsNull { value, negated }),
        ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 2..4).prop_map(Criterion::All),
            proptest::collection::vec(inner.clone(), 2..4).prop_map(Criterion::Any),
            inner.prop_map(Criterion::negate),
        ]
    })
}

fn random_row() -> impl Strategy<Value = Row> {
    (proptest::collection::btree_map(name(), value(), 0..5), 0_u32..1000)
        .prop_map(|(data, number)| Row { data, ..row(number) })
}

/// A pattern fits, told once more by recursion.
fn fits_naively(text: &[char], pattern: &[char]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, rest) => rest.is_none(),
        (Some(('%', after)), _) => (0..=text.len()).any(|skip| fits_naively(&text[skip..], after)),
        (Some(('_', after)), Some((_, rest))) => fits_naively(rest, after),
        (Some((c, after)), Some((t, rest))) => c == t && fits_naively(rest, after),
        (Some(_), None) => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// What is printed reads as the same tree.
    #[test]
    fn print_and_parse_are_inverse(criterion in criterion()) {
        let text = criterion.to_string();
        prop_assert_eq!(parse(&text).map_err(|refused| format!("{text}: {refused}")).unwrap(), criterion);
    }

    /// Not of all is any of the nots, and the other way round, also where something is unknown.
    #[test]
    fn de_morgan(parts in proptest::collection::vec(criterion(), 0..4), row in random_row()) {
        let nots = || parts.iter().cloned().map(Criterion::negate).collect::<Vec<_>>();
        let of = |criterion: Criterion| evaluate(&criterion, &row);
        prop_assert_eq!(of(Criterion::All(parts.clone()).negate()), of(Criterion::Any(nots())));
        prop_assert_eq!(of(Criterion::Any(parts.clone()).negate()), of(Criterion::All(nots())));
    }

    /// `between`, `in` and the negations are what they stand for.
    #[test]
    fn short_forms_are_their_long_forms(value in operand(), low in operand(), high in operand(), row in random_row()) {
        let compare = |op, right: &Operand| Criterion::Compare { left: value.clone(), op, right: right.clone() };
        let of = |criterion: Criterion| evaluate(&criterion, &row);
        let between = |negated| Criterion::Between { value: value.clone(), low: low.clone(), high: high.clone(), negated };
        let long = Criterion::All(vec![compare(CompareOp::GreaterOrEqual, &low), compare(CompareOp::LessOrEqual, &high)]);
        prop_assert_eq!(of(between(false)), of(long.clone()));
        prop_assert_eq!(of(between(true)), of(long.negate()));
        let within = |negated| Criterion::In { value: value.clone(), list: vec![low.clone(), high.clone()], negated };
        let long = Criterion::Any(vec![compare(CompareOp::Equal, &low), compare(CompareOp::Equal, &high)]);
        prop_assert_eq!(of(within(false)), of(long.clone()));
        prop_assert_eq!(of(within(true)), of(long.negate()));
        prop_assert_eq!(of(compare(CompareOp::NotEqual, &low)), of(compare(CompareOp::Equal, &low).negate()));
        prop_assert_eq!(of(compare(CompareOp::Less, &low)), of(compare(CompareOp::GreaterOrEqual, &low).negate()));
    }

    /// Any text is read or refused at a place inside of it.
    #[test]
    fn any_text_is_read_or_refused(text in "[ab'\"()=!<>, %0-9.andortilkeuäß-]{0,40}") {
        match parse(&text) {
            Ok(criterion) => prop_assert_eq!(parse(&criterion.to_string()).unwrap(), criterion),
            Err(refused) => {
                let position: usize = refused.details()["position"].parse().unwrap();
                prop_assert!(position <= text.chars().count());
            }
        }
    }

    #[test]
    fn like_is_what_it_is_naively(text in "[abä]{0,8}", pattern in "[abä%_]{0,6}") {
        let (t, p): (Vec<char>, Vec<char>) = (text.chars().collect(), pattern.chars().collect());
        prop_assert_eq!(like(&text, &pattern, false), fits_naively(&t, &p));
    }

    /// Pages put together are the whole, in order, also when states come and go between them.
    #[test]
    fn pages_are_the_whole(
        rows in proptest::collection::btree_map(0_u32..60, (proptest::option::of(0_i64..4), 0_i64..3), 0..40),
        limit in 1_u32..7,
        descending in any::<(bool, bool)>(),
        gone in proptest::collection::btree_set(0_u32..60, 0..10),
    ) {
        let make = |(number, (a, b)): (u32, (Option<i64>, i64))| {
            let a = a.map_or(Value::Null, |a| Value::Number(Number::from(a)));
            let data = [("a".to_owned(), a), ("b".to_owned(), Value::Number(Number::from(b)))];
            Row { data: BTreeMap::from(data), ..row(number) }
        };
        let all: Vec<Row> = rows.into_iter().map(make).collect();
        let key = |name: &str, descending| SortKey { field: Field::Data(name.to_owned()), descending };
        let query = Query { sort: vec![key("a", descending.0), key("b", descending.1)], limit, ..Query::default() };
        let whole = page(&Query { limit: MAX_LIMIT, ..query.clone() }, &all, None).unwrap();
        prop_assert_eq!(&whole.cursor, &None);

        let gone: BTreeSet<_> = gone.into_iter().map(reference).collect();
        let stayed: Vec<Row> = all.iter().filter(|row| !gone.contains(&row.reference)).cloned().collect();
        let (mut seen, mut cursor, mut pages) = (Vec::new(), None, 0);
        loop {
            // From the second page on some states are gone.
            let rows = if pages == 0 { &all } else { &stayed };
            let next = page(&query, rows, cursor.as_ref()).unwrap();
            pages += 1;
            prop_assert!(next.rows.len() == limit as usize || next.cursor.is_none());
            seen.extend(next.rows.iter().map(|row| row.reference));
            match next.cursor {
                Some(more) => cursor = Some(more),
                None => break,
            }
        }
        let first = |reference: &crate::tx::StateRef| seen.iter().position(|other| other == reference);
        prop_assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), seen.len());
        let expected: Vec<_> = whole.rows.iter().map(|row| row.reference).filter(|r| !gone.contains(r) || first(r).is_some()).collect();
        prop_assert_eq!(seen, expected);
    }
}
