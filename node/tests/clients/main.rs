//! The clients for Python and TypeScript against real node processes: what a script of each does
//! from end to end, over a kill of the node in the middle.
//!
//! Each needs its language and, once, its packages; where those are not to be had, the test says
//! `skipped:` and what is missing. What was installed is kept below the target directory.
#![allow(missing_docs, clippy::unwrap_used, clippy::disallowed_methods, clippy::disallowed_types)]

#[path = "../support/process.rs"]
mod process;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use node::dev::DevChain;
use node::runtime::Tasks;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

use process::{Process, Root, fund, make, open};

/// How long a script may take.
const SCRIPT_MAX: Duration = Duration::from_secs(240);

/// What the Python client needs, and what judges our OpenAPI document.
const PYTHON_PACKAGES: [&str; 3] =
    ["grpcio-tools>=1.66,<2", "grpcio-status>=1.66,<2", "openapi-spec-validator>=0.7,<1"];

fn proto() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("proto")
}

/// A directory that stays from run to run.
fn kept(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&path).unwrap();
    path
}

fn copy(from: &Path, to: &Path) {
    let left_out = ["node_modules", "dist", "gen", "v1.bak", "__pycache__"];
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && !left_out.contains(&name) {
            copy(&path, &to.join(name));
        } else if path.is_file() {
            fs::copy(&path, to.join(name)).unwrap();
        }
    }
}

/// Runs a program to its end; what it said if it failed.
async fn run(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output().await.map_err(|error| error.to_string())?;
    let text =
        [&*String::from_utf8_lossy(&output.stdout), &*String::from_utf8_lossy(&output.stderr)]
            .concat();
    if output.status.success() { Ok(text) } else { Err(text) }
}

/// Held while packages are installed: two tests want the same.
static INSTALLING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Python with the packages, or why there is none.
async fn python() -> Result<PathBuf, String> {
    let _alone = INSTALLING.lock().await;
    let place = kept("python");
    let python = place.join("bin/python");
    let done = place.join("installed");
    if !done.exists() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&place))
            .await
            .map_err(|why| format!("no python3 with venv ({why})"))?;
        run(Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(PYTHON_PACKAGES))
            .await
            .map_err(|why| format!("no Python packages ({why})"))?;
        fs::write(&done, "").unwrap();
    }
    Ok(python)
}

/// The TypeScript client, built, or why it cannot be.
async fn typescript() -> Result<PathBuf, String> {
    let place = kept("typescript");
    let client = place.join("clients/typescript");
    copy(&proto().join("tributary"), &place.join("tributary"));
    copy(&proto().join("clients/typescript"), &client);
    run(Command::new("node").arg("--version")).await.map_err(|why| format!("no node ({why})"))?;
    let manifest = fs::read(client.join("package.json")).unwrap();
    let done = client.join("node_modules/installed");
    if fs::read(&done).ok().as_ref() != Some(&manifest) {
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-audit", "--no-fund", "--no-package-lock"]).current_dir(&client);
        run(&mut npm).await.map_err(|why| format!("no packages from npm ({why})"))?;
        fs::write(&done, manifest).unwrap();
    }
    // From here on a failure is ours.
    let built = run(Command::new("npm").args(["run", "build"]).current_dir(&client)).await;
    built.expect("the TypeScript client is built");
    Ok(client)
}

/// Two nodes with a channel, of which the first serves REST and webhooks to loopback.
struct World {
    alice: Process,
    bob: Process,
    tasks: Tasks,
    root: Root,
}

impl World {
    async fn new() -> Self {
        let root = Root::new();
        let tasks = Tasks::new();
        let chain = DevChain::embedded();
        let chain_rpc = format!("http://{}", chain.serve(&tasks).await.unwrap());
        let mut alice = make("alice", root.path(), &chain_rpc);
        let mut bob = make("bob", root.path(), &chain_rpc);
        alice.with_rest();
        let config = alice.dir.join("config.toml");
        let settings = fs::read_to_string(&config).unwrap();
        fs::write(&config, format!("{settings}\n[webhook]\nallow_private = true\n")).unwrap();
        alice.start();
        bob.start();
        chain.mine(1).await.unwrap();
        fund(&chain, &[&alice], 5_000_000).await;
        open(&chain, &alice, &bob, 2_000_000).await;
        Self { alice, bob, tasks, root }
    }

    /// Runs a script. When it says `kill`, the first node is killed, and started again when it
    /// says `start`.
    async fn play(&mut self, command: &mut Command) {
        let mut child = command
            .arg(&self.alice.dir)
            .arg(&self.bob.dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut told = child.stdin.take().unwrap();
        let playing = async {
            let mut is_done = false;
            while let Some(line) = lines.next_line().await.unwrap() {
                println!("  {line}");
                match line.as_str() {
                    "kill" => self.alice.kill(),
                    "start" => self.alice.start(),
                    "done" => is_done = true,
                    _ => continue,
                }
                let _ = told.write_all(b"ok\n").await;
            }
            let status = child.wait().await.unwrap();
            assert!(status.success() && is_done, "the script failed: {status}");
        };
        tokio::time::timeout(SCRIPT_MAX, playing).await.expect("the script comes to its end");
    }

    async fn end(self) {
        self.tasks.stop().await;
        drop((self.alice, self.bob, self.root));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_python_client_pays_resumes_and_verifies() {
    let python = match python().await {
        Ok(python) => python,
        Err(why) => return println!("skipped: {why}"),
    };
    let place = kept("python-client");
    let source = proto().join("clients/python");
    copy(&source.join("tributary"), &place.join("tributary"));
    run(Command::new(&python).arg(source.join("generate.py")).arg(&place))
        .await
        .expect("the definitions are compiled");
    let mut world = World::new().await;
    let mut script = Command::new(&python);
    script.arg("-u").arg(source.join("tests/e2e.py")).env("PYTHONPATH", &place);
    world.play(&mut script).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_typescript_client_pays_resumes_and_verifies() {
    let client = match typescript().await {
        Ok(client) => client,
        Err(why) => return println!("skipped: {why}"),
    };
    let mut world = World::new().await;
    world.play(Command::new("node").arg(client.join("tests/e2e.mjs"))).await;
    world.end().await;
}

#[tokio::test]
async fn others_find_nothing_wrong_with_the_openapi_document() {
    let python = match python().await {
        Ok(python) => python,
        Err(why) => return println!("skipped: {why}"),
    };
    let document = proto().join("openapi.json");
    let mut validator = Command::new(python);
    run(validator.args(["-m", "openapi_spec_validator"]).arg(document)).await.unwrap();
}
