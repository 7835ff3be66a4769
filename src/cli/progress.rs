//! A line on the terminal for work that takes longer than a second.

use std::io::{IsTerminal, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Shows `label` and the seconds passed, from the first second on, until dropped. Silent when standard error is
/// no terminal.
pub struct Progress {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Progress {
    pub fn start(label: impl Into<String>) -> Progress {
        if !std::io::stderr().is_terminal() {
            return Progress { stop: None, thread: None };
        }
        let (stop, stopped) = channel();
        let label = label.into();
        let thread = std::thread::spawn(move || show(&label, &stopped));
        Progress { stop: Some(stop), thread: Some(thread) }
    }
}

fn show(label: &str, stopped: &Receiver<()>) {
    let started = Instant::now();
    let mut shown = false;
    while stopped.recv_timeout(Duration::from_millis(1000)) == Err(RecvTimeoutError::Timeout) {
        eprint!("\r{label} ... {} s", started.elapsed().as_secs());
        // A terminal that cannot be flushed has nothing to show.
        let _ = std::io::stderr().flush();
        shown = true;
    }
    if shown {
        eprint!("\r{:width$}\r", "", width = label.len() + 16);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // It only prints; if it panicked there is nothing to clean up.
            let _ = thread.join();
        }
    }
}
