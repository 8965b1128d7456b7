//! A vault of a million states: pages of what is asked for, recording, selecting and locking.
//!
//! The states are recorded through the store, ten a transaction, three of ten consumed by later ones; no flow has made them.
//! Each has five declared attributes: one that tells it from all others, one of a thousand owners, one of four currencies of
//! very different number, an amount and a time.

mod filled;
mod paying;

use std::time::{Duration, Instant};

use maxhost_ledger::time::Timestamp;
use maxhost_ledger::vault::query::{Cursor, Query, SortKey, StatusFilter, parse};
use maxhost_store::ledger::query::page;

use crate::figures::{Goal, Report, percentile};
use crate::setting::{Outcome, Setting};
use filled::{Filled, Random};

/// States of a page.
const PAGE: u32 = 100;
/// A page has to be there by then at the 99th percentile, milliseconds.
const PAGE_GOAL: f64 = 10.0;
/// A question that takes long is not asked for longer than this.
const LONGEST: Duration = Duration::from_secs(8);

pub fn measure(setting: &Setting, report: &mut Report) -> Outcome {
    let scratch = setting.scratch()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (size, name) = match setting.quick {
        true => (100_000, "a vault of 100,000 states"),
        false => (1_000_000, "a vault of 1,000,000 states"),
    };
    runtime.block_on(async {
        let mut small = Filled::make(&scratch.path().join("small.db"), 1_000).await?;
        let little = paying::recording(setting, &mut small).await?;
        paying::payers(setting, report, &scratch.path().join("payers.db")).await?;
        report.group(name);
        let began = Instant::now();
        let mut large = Filled::make(&scratch.path().join("large.db"), size).await?;
        report.add("making it, a state", began.elapsed().as_secs_f64() * 1e6 / f64::from(size), "µs", Goal::None);
        let much = paying::recording(setting, &mut large).await?;
        report.add("recording a payment among 1,000 states, CPU", little.cpu, "µs", Goal::None);
        report.add("recording a payment in this vault, CPU", much.cpu, "µs", Goal::None);
        report.add("the second over the first", much.cpu / little.cpu, "×", Goal::AtMost(1.5));
        report.add("one alone, p50, over one among 1,000", much.alone / little.alone, "×", Goal::AtMost(1.5));
        paying::selecting(setting, report, &large).await?;
        pages(setting, report, &large).await
    })
}

/// What is asked for: a name, the criteria, by what it is sorted, of which status, and whether a type is named.
struct Question {
    name: &'static str,
    filter: fn(&mut Random, u32) -> String,
    sort: &'static str,
    status: StatusFilter,
    of_type: bool,
}

fn question(name: &'static str, filter: fn(&mut Random, u32) -> String) -> Question {
    Question { name, filter, sort: "", status: StatusFilter::Unconsumed, of_type: false }
}

fn questions() -> Vec<Question> {
    let any = |_: &mut Random, _: u32| String::new();
    let sorted = |name, sort| Question { sort, ..question(name, any) };
    vec![
        question("no criteria", any),
        Question { status: StatusFilter::All, ..question("no criteria, consumed ones too", any) },
        question("notary = that of all", |_, _| format!("notary = '{}'", filled::NOTARY)),
        Question { of_type: true, ..question("of the only type", any) },
        question("ref = a state's", |random, size| {
            format!("ref = '{}'", filled::reference(random.below(u64::from(size)) as u32))
        }),
        question("serial = one of all", |random, size| {
            format!("serial = '{}'", filled::serial(random.below(u64::from(size)) as u32))
        }),
        question("owner = one of a thousand", |random, _| format!("owner = '{}'", filled::owner(random.below(1_000)))),
        question("currency = that of half", |_, _| "currency = 'GBP'".to_owned()),
        question("currency = that of one in a thousand", |_, _| "currency = 'CHF'".to_owned()),
        question("quantity within a thousandth", |random, _| {
            let from = random.below(999_000);
            format!("quantity >= {from} and quantity < {}", from + 1_000)
        }),
        question("quantity above the middle", |_, _| "quantity > 500000".to_owned()),
        question("due within a thousandth", |random, _| {
            let from = random.below(999_000);
            format!("due >= '{}' and due < '{}'", filled::due(from), filled::due(from + 1_000))
        }),
        question("recorded in the last thousandth", |_, size| {
            format!("recorded >= '{}'", Timestamp::from_nanos(u64::from(size - size / 1_000) * 1_000_000_000))
        }),
        question("owner and currency of half", |random, _| {
            format!("owner = '{}' and currency = 'GBP'", filled::owner(random.below(1_000)))
        }),
        question("owner or serial", |random, size| {
            let (owner, serial) = (random.below(1_000), random.below(u64::from(size)) as u32);
            format!("owner = '{}' or serial = '{}'", filled::owner(owner), filled::serial(serial))
        }),
        sorted("sorted by serial", "serial"),
        sorted("sorted by quantity, the largest first", "quantity:desc"),
        sorted("sorted by currency", "currency"),
        sorted("sorted by time of recording, the newest first", "recorded:desc"),
        Question {
            sort: "quantity:desc",
            ..question("owner = one of a thousand, sorted by quantity", |random, _| {
                format!("owner = '{}'", filled::owner(random.below(1_000)))
            })
        },
        Question {
            sort: "quantity",
            ..question("currency = that of half, sorted by quantity", |_, _| "currency = 'GBP'".to_owned())
        },
    ]
}

async fn pages(setting: &Setting, report: &mut Report, vault: &Filled) -> Outcome {
    let turns = if setting.quick { 40 } else { 200 };
    let mut random = Random(17);
    for question in questions() {
        let mut times = Vec::new();
        let began = Instant::now();
        // The first pages of one question come in turn with later ones.
        let mut cursor: Option<(Query, Cursor)> = None;
        while times.len() < turns && (began.elapsed() < LONGEST || times.len() < 2) {
            let (query, after) = match cursor.take() {
                Some((query, cursor)) => (query, Some(cursor)),
                None => (asked(&question, &mut random, vault.size)?, None),
            };
            let asked = Instant::now();
            let found = page(&*vault.store, vault.owner.identity, &query, after.as_ref(), None, filled::now()).await?;
            times.push(asked.elapsed().as_secs_f64() * 1e3);
            cursor = found.cursor.map(|cursor| (query, cursor)).filter(|_| times.len() % 4 != 0);
        }
        let (middle, most) = (percentile(&mut times, 0.5), percentile(&mut times, 0.99));
        report.add(format!("{}, a page, p50", question.name), middle, "ms", Goal::None);
        report.add(format!("{}, a page, p99", question.name), most, "ms", Goal::AtMost(PAGE_GOAL));
    }
    Ok(())
}

fn asked(question: &Question, random: &mut Random, size: u32) -> Outcome<Query> {
    let filter = (question.filter)(random, size);
    let mut query = Query { status: question.status, limit: PAGE, ..Query::default() };
    if !filter.is_empty() {
        query.filter = parse(&filter)?;
    }
    query.types = question.of_type.then(|| vec![filled::TYPE.to_owned()]);
    if !question.sort.is_empty() {
        query.sort = SortKey::parse_list(question.sort)?;
    }
    Ok(query)
}
