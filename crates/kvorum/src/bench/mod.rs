//! `kvorum bench`: a load generator for both protocols, in open and closed loop, with percentiles and the breaking point of a rising rate.

mod client;
mod http;
mod load;
mod options;
mod resp;
mod tally;
mod workload;

pub(crate) use options::{Options, command};

use load::{Ended, Outcome, Run};
use options::{Protocol, Ramp};
use tokio::sync::watch;

/// A step whose rate falls below this share of what was asked for has passed the breaking point.
const KEPT_SHARE_MIN: f64 = 0.95;

/// Steps of a ramp.
const STEPS_MAX: u64 = 1000;

/// Runs the load and prints what came of it.
pub(crate) fn bench(options: &Options) -> Result<(), String> {
    let ended = end_on_signals()?;
    println!("{}", describe(options));
    if let Some(ramp) = options.ramp {
        return climb(options, ramp, &ended);
    }
    let Outcome { tally, took } = Run::new(options, options.rate, &ended).execute()?;
    print!("{}", tally.table(took)?);
    if tally.operations() == 0 && tally.failures() > 0 {
        return Err(String::from("nothing was carried out"));
    }
    Ok(())
}

fn climb(options: &Options, ramp: Ramp, ended: &Ended) -> Result<(), String> {
    println!("   asked/s   done/s   p50 ms   p99 ms p99.9 ms   errors");
    let mut kept = None;
    for step in 0..STEPS_MAX {
        let rate = ramp.start.saturating_add(ramp.step.saturating_mul(step));
        let Outcome { tally, took } = Run::new(options, Some(rate), ended).execute()?;
        if *ended.borrow() {
            break;
        }
        let done = tally.operations() as f64 / took.as_secs_f64().max(f64::EPSILON);
        let millis = |percent| tally.percentile(percent).map(|time| time.as_secs_f64() * 1000.0);
        let (p50, p99, p999) = (millis(50.0)?, millis(99.0)?, millis(99.9)?);
        println!("{rate:10} {done:8.0} {p50:8.3} {p99:8.3} {p999:8.3} {:8}", tally.failures());
        let keeps_up = done >= rate as f64 * KEPT_SHARE_MIN;
        if !keeps_up || p99 > ramp.until_p99.as_secs_f64() * 1000.0 || tally.failures() > 0 {
            let why = match (keeps_up, tally.failures()) {
                (_, 1..) => "errors",
                (false, _) => "the rate was not kept",
                (true, _) => "the 99th percentile was passed",
            };
            print!("{}", tally.remarks());
            match kept {
                Some(kept) => println!("breaking point: {kept}/s kept, {rate}/s not ({why})"),
                None => println!("breaking point: below {rate}/s ({why})"),
            }
            return Ok(());
        }
        kept = Some(rate);
    }
    if *ended.borrow() {
        println!("no breaking point before it was ended");
    } else {
        println!("no breaking point in {STEPS_MAX} steps: start higher, or take larger steps");
    }
    Ok(())
}

/// Becomes true when a signal asks for the end; a second one doesn't wait for it.
fn end_on_signals() -> Result<Ended, String> {
    let (sender, ended) = watch::channel(false);
    crate::serve::on_signals(move || {
        sender.send_replace(true);
    })?;
    Ok(ended)
}

fn describe(options: &Options) -> String {
    let Options { clients, threads, pipeline, reads_percent, keys, value_bytes, .. } = options;
    let what = match options.protocol {
        Protocol::Resp => format!("RESP, pipeline {pipeline}"),
        Protocol::Http => String::from("HTTP"),
    };
    let pace = match (options.rate, options.ramp) {
        (Some(rate), _) => format!("open loop at {rate}/s"),
        (None, Some(ramp)) => format!("open loop from {}/s in steps of {}/s", ramp.start, ramp.step),
        (None, None) => String::from("closed loop"),
    };
    format!(
        "{}: {what}, {clients} clients on {threads} threads, {reads_percent} % reads, {keys} keys, values of {value_bytes} bytes, {pace}",
        options.addresses.join(",")
    )
}
