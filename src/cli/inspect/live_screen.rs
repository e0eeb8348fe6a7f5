//! A terminal that shows one page again and again, until a key or a signal ends it.
//!
//! Guarantees:
//! - The terminal is as before when the screen is dropped: its contents, cursor, and handling of keys.
//! - A page replaces the one before without a flicker: each line is overwritten in place.

use std::io::{self, IsTerminal as _, Read as _, Write as _};

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::overview_text::{LineTone, OverviewLine, ScreenSize};

/// Other screen, no cursor, no line wrap; and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[2K";
const CLEAR_BELOW: &str = "\x1b[J";
const RESET: &str = "\x1b[0m";
/// The size of a terminal that does not tell it.
const SIZE_DEFAULT: ScreenSize = ScreenSize { columns: 80, rows: 24 };
/// Keys that wait; more are dropped.
const KEYS_MAX: usize = 16;

/// What a viewer did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ViewerAction {
    Quit,
    /// The size of the terminal has changed, or another key was pressed.
    Redraw,
}

/// The terminal of standard output.
pub(super) struct LiveScreen {
    /// The handling of keys before; `None` if standard input is no terminal.
    keys_before: Option<Termios>,
    keys: mpsc::Receiver<u8>,
    signals: [Signal; 3],
    resized: Signal,
}

impl LiveScreen {
    /// Takes the terminal. Must run inside a tokio runtime.
    pub(super) fn open() -> io::Result<Self> {
        let signals = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let [interrupt, terminate, hangup] = signals.map(signal);
        let signals = [interrupt?, terminate?, hangup?];
        let resized = signal(SignalKind::window_change())?;
        let (pressed, keys) = mpsc::channel(KEYS_MAX);
        let keys_before = if io::stdin().is_terminal() { take_keys()? } else { None };
        // The thread waits for a key until the process ends: a terminal cannot be read with a time limit.
        std::thread::Builder::new().name("keys".to_owned()).spawn(move || read_keys(&pressed))?;
        let screen = Self { keys_before, keys, signals, resized };
        write_out(ENTER)?;
        Ok(screen)
    }

    /// Shows lines.
    pub(super) fn draw(&self, lines: &[OverviewLine]) -> io::Result<()> {
        let mut page = String::from(HOME);
        for (number, line) in lines.iter().enumerate() {
            if number > 0 {
                page += "\r\n";
            }
            // Cleared first: at the end of a full line, the cursor stands on its last character.
            page += &format!("{CLEAR_LINE}{}{}{RESET}", colour(line.tone), line.text);
        }
        page += CLEAR_BELOW;
        write_out(&page)
    }

    /// Waits for the viewer.
    pub(super) async fn action(&mut self) -> ViewerAction {
        let [interrupt, terminate, hangup] = &mut self.signals;
        tokio::select! {
            _ = interrupt.recv() => ViewerAction::Quit,
            _ = terminate.recv() => ViewerAction::Quit,
            _ = hangup.recv() => ViewerAction::Quit,
            _ = self.resized.recv() => ViewerAction::Redraw,
            Some(key) = self.keys.recv() => match key {
                b'q' | b'Q' => ViewerAction::Quit, // Ctrl-C is a signal
                _ => ViewerAction::Redraw,
            },
        }
    }
}

impl Drop for LiveScreen {
    fn drop(&mut self) {
        let _ = write_out(LEAVE); // the terminal has gone
        if let Some(before) = &self.keys_before {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}

/// The size of the terminal of standard output.
pub(super) fn screen_size() -> ScreenSize {
    match tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
            ScreenSize { columns: size.ws_col.into(), rows: size.ws_row.into() }
        }
        _ => SIZE_DEFAULT,
    }
}

/// Lets single keys be read at once, without showing them. Returns the handling before.
fn take_keys() -> io::Result<Option<Termios>> {
    let before = tcgetattr(io::stdin())?;
    let mut single = before.clone();
    single.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
    single.special_codes[SpecialCodeIndex::VMIN] = 1;
    single.special_codes[SpecialCodeIndex::VTIME] = 0;
    tcsetattr(io::stdin(), OptionalActions::Now, &single)?;
    Ok(Some(before))
}

fn read_keys(pressed: &mpsc::Sender<u8>) {
    let mut key = [0];
    while io::stdin().lock().read(&mut key).is_ok_and(|read| read > 0) {
        if matches!(pressed.try_send(key[0]), Err(mpsc::error::TrySendError::Closed(_))) {
            return;
        }
    }
}

fn colour(tone: LineTone) -> &'static str {
    match tone {
        LineTone::Plain => "",
        LineTone::Heading => "\x1b[1m",
        LineTone::Warning => "\x1b[33m",
        LineTone::Alarm => "\x1b[1;31m",
    }
}

fn write_out(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}
