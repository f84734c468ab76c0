//! `chainring sim --mutant` and `--mutants`: whether planted faults are caught.

use super::show::{COMMIT, number, replay};
use super::{LastWords, SimArgs, say_first_seed, usage, worlds};
use crate::cli::out::{Exit, Failure, Output, table};
use crate::sim::mutants::{Hunt, hunt, median_and_worst, named};
use crate::sim::swarm::{Orders, set_quiet};
use chainring_ring::mutants::{Mutant, is_planted, plant};
use serde_json::{Value, json};

/// Seeds after which a hunt ends.
const SEEDS: u64 = 5_000;

/// What comes of it, if anything was asked of mutants.
pub(super) fn asked(
    args: &SimArgs,
    orders: &Orders,
    words: &LastWords,
) -> Result<Option<Output>, Failure> {
    let name = match (&args.mutant, args.mutants) {
        (None, false) => return Ok(None),
        (None, true) => return Ok(Some(hunts(args, orders, Mutant::ALL))),
        (Some(name), _) => name.as_str(),
    };
    if name == "none" {
        return Ok(None);
    }
    if name == "list" {
        return Ok(Some(list()));
    }
    let mutants = name.split(',').map(|name| {
        named(name).ok_or_else(|| usage(format!("no mutant is called {name}; see --mutant list")))
    });
    let mutants: Vec<Mutant> = mutants.collect::<Result<_, _>>()?;
    match (&mutants[..], args.seed) {
        // One world with it, to look at: as any other that fails.
        ([mutant], Some(_)) => {
            plant(Some(*mutant));
            Ok(Some(worlds(args, orders, words)))
        }
        (_, Some(_)) => Err(usage("--seed replays a world with one mutant: name one".to_owned())),
        (_, None) => Ok(Some(hunts(args, orders, &mutants))),
    }
}

/// The fault that is planted.
pub(super) fn planted() -> Option<&'static str> {
    let planted = Mutant::ALL.iter().find(|mutant| is_planted(**mutant));
    planted.map(|mutant| mutant.name())
}

fn list() -> Output {
    let head = ["mutant", "invariant", "source", "what it does"].map(str::to_owned).to_vec();
    let row = |mutant: &Mutant| {
        let parts = [mutant.name(), mutant.invariant(), mutant.source(), mutant.text()];
        parts.map(str::to_owned).to_vec()
    };
    let rows: Vec<_> = std::iter::once(head).chain(Mutant::ALL.iter().map(row)).collect();
    let json = Mutant::ALL.iter().map(|mutant| {
        json!({ "mutant": mutant.name(), "invariant": mutant.invariant(),
            "source": mutant.source(), "what": mutant.text() })
    });
    Output::new(table(&rows), json!({ "mutants": json.collect::<Vec<_>>() }))
}

fn hunts(args: &SimArgs, orders: &Orders, mutants: &[Mutant]) -> Output {
    set_quiet(true);
    say_first_seed(orders);
    let orders = Orders { seeds: args.seeds.or(Some(SEEDS)), ..orders.clone() };
    let hunts = one_by_one(&orders, mutants);
    let caught = hunts.iter().filter(|hunt| hunt.caught.is_some()).count();
    let (median, worst) = median_and_worst(&hunts).unzip();
    let head = ["mutant", "expected", "caught by", "seeds", "panics", "unsettled", "seconds"];
    let head = head.map(str::to_owned).to_vec();
    let rows: Vec<_> = std::iter::once(head).chain(hunts.iter().map(row)).collect();
    let known = |seeds: Option<u64>| seeds.map_or("?".to_owned(), |seeds| seeds.to_string());
    let text = format!(
        "{}\n{caught} of {} mutants caught, first seed {}, commit {COMMIT}; seeds: median {}, worst {}",
        table(&rows),
        mutants.len(),
        orders.first_seed,
        known(median),
        known(worst)
    );
    let json = json!({
        "commit": COMMIT,
        "first_seed": orders.first_seed,
        "threads": orders.threads,
        "mutants": hunts.iter().map(|hunt| hunt_json(&orders, hunt)).collect::<Vec<_>>(),
        "caught": caught,
        "interrupted": orders.has_ended(),
        "seeds_median": median,
        "seeds_worst": worst,
    });
    let exit = match caught == hunts.len() {
        true if caught == mutants.len() => Exit::Ok,
        true => Exit::Interrupted,
        false => Exit::Failed,
    };
    Output::new(text, json).ending(exit)
}

/// Until all were hunted or a signal comes; of what it cut short nothing is known.
fn one_by_one(orders: &Orders, mutants: &[Mutant]) -> Vec<Hunt> {
    let mut hunts = Vec::new();
    for mutant in mutants {
        let hunt = hunt(*mutant, orders);
        if orders.has_ended() && hunt.caught.is_none() {
            break;
        }
        eprintln!("{}", told(orders, &hunt));
        hunts.push(hunt);
    }
    hunts
}

/// Said as soon as it is known: all of them take hours.
fn told(orders: &Orders, hunt: &Hunt) -> String {
    let (name, seconds) = (hunt.mutant.name(), hunt.took.as_secs_f64());
    match &hunt.caught {
        Some((failure, seeds)) => {
            let replay = replay(orders, failure.seed, &orders.course, Some(name));
            let worlds = number(*seeds, "world");
            format!("{name}: {} after {worlds}, {seconds:.1} s: {replay}", failure.name)
        }
        None => format!("{name}: not caught in {}, {seconds:.1} s", number(hunt.seeds, "world")),
    }
}

fn row(hunt: &Hunt) -> Vec<String> {
    let (by, seeds) = match &hunt.caught {
        Some((failure, seeds)) => (failure.name.clone(), *seeds),
        None => ("nothing".to_owned(), hunt.seeds),
    };
    vec![
        hunt.mutant.name().to_owned(),
        hunt.mutant.invariant().to_owned(),
        by,
        seeds.to_string(),
        hunt.panicked.to_string(),
        hunt.unsettled.to_string(),
        format!("{:.1}", hunt.took.as_secs_f64()),
    ]
}

fn hunt_json(orders: &Orders, hunt: &Hunt) -> Value {
    let caught = hunt.caught.as_ref().map(|(failure, seeds)| {
        json!({
            "by": failure.name,
            "seeds": seeds,
            "seed": failure.seed,
            "what": failure.what,
            "replay": replay(orders, failure.seed, &orders.course, Some(hunt.mutant.name())),
        })
    });
    json!({
        "mutant": hunt.mutant.name(),
        "expected": hunt.mutant.invariant(),
        "caught": caught,
        "panicked": hunt.panicked,
        "unsettled": hunt.unsettled,
        "seeds": hunt.seeds,
        "seconds": hunt.took.as_secs_f64(),
    })
}
