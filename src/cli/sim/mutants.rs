//! `chainring sim --mutant` and `--mutants`: whether planted faults are caught.

use super::{COMMIT, SimArgs, worlds};
use crate::cli::out::{Exit, Failure, Output, progress, table};
use crate::sim::mutants::{Hunt, hunt, median_and_worst, named};
use crate::sim::swarm::{Orders, set_quiet};
use chainring_ring::mutants::Mutant;
use serde_json::{Value, json};

/// Seeds after which a hunt ends.
const SEEDS: u64 = 5_000;

/// What comes of it, if anything was asked of mutants.
pub(super) fn asked(args: &SimArgs) -> Result<Option<Output>, Failure> {
    let name = match (&args.mutant, args.mutants) {
        (None, false) => return Ok(None),
        (None, true) => return Ok(Some(hunts(args, Mutant::ALL))),
        (Some(name), _) => name.as_str(),
    };
    match name {
        "none" => Ok(None),
        "list" => Ok(Some(list())),
        name => {
            let mutants = name.split(',').map(|name| {
                named(name).ok_or_else(|| {
                    let message = format!("no mutant is called {name}; see --mutant list");
                    Failure::new(Exit::Usage, "usage", message)
                })
            });
            let mutants: Vec<Mutant> = mutants.collect::<Result<_, _>>()?;
            if let ([mutant], true) = (&mutants[..], args.seed.is_some()) {
                // One world with it, to look at: as any other that fails.
                chainring_ring::mutants::plant(Some(*mutant));
                return Ok(Some(worlds(args)));
            }
            Ok(Some(hunts(args, &mutants)))
        }
    }
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

fn hunts(args: &SimArgs, mutants: &[Mutant]) -> Output {
    set_quiet(true);
    let orders = args.orders();
    let orders = Orders { seeds: args.seeds.or(Some(SEEDS)), ..orders };
    let hunts: Vec<Hunt> = mutants
        .iter()
        .map(|mutant| {
            let hunt = hunt(*mutant, orders);
            progress(&row(&hunt).join("  "));
            hunt
        })
        .collect();
    let caught = hunts.iter().filter(|hunt| hunt.caught.is_some()).count();
    let (median, worst) = median_and_worst(&hunts).unzip();
    let head = ["mutant", "expected", "caught by", "seeds", "panics", "unsettled", "seconds"];
    let head = head.map(str::to_owned).to_vec();
    let rows: Vec<_> = std::iter::once(head).chain(hunts.iter().map(row)).collect();
    let known = |seeds: Option<u64>| seeds.map_or("?".to_owned(), |seeds| seeds.to_string());
    let text = format!(
        "{}\n{caught} of {} mutants caught, first seed {}, commit {COMMIT}; seeds: median {}, worst {}",
        table(&rows),
        hunts.len(),
        orders.first_seed,
        known(median),
        known(worst)
    );
    let json = json!({
        "commit": COMMIT,
        "first_seed": orders.first_seed,
        "threads": orders.threads,
        "mutants": hunts.iter().map(hunt_json).collect::<Vec<_>>(),
        "caught": caught,
        "seeds_median": median,
        "seeds_worst": worst,
    });
    let exit = if caught == hunts.len() { Exit::Ok } else { Exit::Failed };
    Output::new(text, json).ending(exit)
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

fn hunt_json(hunt: &Hunt) -> Value {
    let caught = hunt.caught.as_ref().map(|(failure, seeds)| {
        json!({ "by": failure.name, "seeds": seeds, "seed": failure.seed, "what": failure.what })
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
