//! The supervisor in a shell, as `docs/operations.md` has it.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::place::Place;

/// A shell and all that it has started; killed when this is dropped.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        let group = Pid::from_raw(i32::try_from(self.0.id()).unwrap());
        // Failing means that all of it is gone already.
        let _ = killpg(group, Signal::SIGKILL);
        let _ = self.0.wait();
    }
}

/// The block of the page that begins so, without its indent.
fn snippet(page: &str, first: &str) -> String {
    let path = format!("{}/{page}", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(path).unwrap();
    let lines = text.lines().skip_while(|line| line.trim() != first);
    let lines = lines.map_while(|line| line.strip_prefix("    "));
    lines.map(|line| line.to_owned() + "\n").collect()
}

#[tokio::test]
async fn the_loop_of_the_page_restarts_both_when_execpool_ends_with_88() {
    let place = Place::new("in_a_loop", "exit-code").await;
    let script = snippet("docs/operations.md", "while :; do");
    assert!(script.ends_with("done\n"), "{script}");
    let path = format!(
        "{}:{}",
        place.path("bin").display(),
        std::env::var("PATH").unwrap()
    );
    let shell = Command::new("sh")
        .args(["-c", &script])
        .env("PATH", path)
        .stdin(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap();
    let _group = Group(shell);
    place.comes_to((2, 2)).await;
    place.has_restarted_once().await;
}
