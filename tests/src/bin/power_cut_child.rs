//! The child of the power-cut suite: `work` writes under the tracer, `check` reads images.

use std::process::ExitCode;

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    eprintln!("power_cut_child needs Linux: the suite traces system calls");
    ExitCode::FAILURE
}

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    use std::path::Path;
    use tests::power_cut::{checker, workload};

    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["check"] => {
            checker::serve();
            ExitCode::SUCCESS
        }
        ["work", dir, engine, seed, first, second, marks] => {
            let (Ok(engine), Ok(seed), Ok(first), Ok(second)) =
                (engine.parse(), seed.parse(), first.parse(), second.parse())
            else {
                eprintln!("power_cut_child: bad arguments");
                return ExitCode::from(2);
            };
            let run = workload::Run { seed, first, second };
            match workload::run(Path::new(dir), engine, run, Path::new(marks)) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("power_cut_child: {error}");
                    ExitCode::FAILURE
                }
            }
        }
        _ => {
            eprintln!("power_cut_child is started by the power-cut suite");
            ExitCode::from(2)
        }
    }
}
