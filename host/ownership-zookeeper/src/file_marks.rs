//! Which of the shared files may have changed.

use std::collections::HashSet;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::files::FileName;

/// Marks that are kept one by one; with more, everything is looked at.
const MARKS: usize = 4096;

/// Which files may have changed. Marks stay until they are taken, so no change is missed while nobody looks.
#[derive(Debug)]
pub(crate) struct FileMarks {
    marks: Mutex<Marks>,
    rung: Notify,
}

/// What was marked.
#[derive(Debug)]
pub(crate) struct Marks {
    /// Every file counts as marked, whatever `files` has.
    pub all: bool,
    pub files: HashSet<FileName>,
}

impl FileMarks {
    /// Nothing is known: everything is marked.
    pub fn new() -> FileMarks {
        FileMarks { marks: Mutex::new(Marks { all: true, files: HashSet::new() }), rung: Notify::new() }
    }

    /// Something happened to the node of this path.
    pub fn mark(&self, path: &str) {
        let Some(file) = FileName::of_path(path) else { return };
        {
            let mut marks = self.marks.lock();
            if marks.files.len() < MARKS {
                marks.files.insert(file);
            } else {
                marks.all = true;
            }
        }
        self.rung.notify_one();
    }

    /// Events may have been missed.
    pub fn mark_all(&self) {
        self.marks.lock().all = true;
        self.rung.notify_one();
    }

    /// Returns once something was marked since the last time.
    pub async fn rung(&self) {
        self.rung.notified().await;
    }

    /// Everything that is marked; nothing is marked then.
    pub fn take(&self) -> Marks {
        let mut marks = self.marks.lock();
        std::mem::replace(&mut *marks, Marks { all: false, files: HashSet::new() })
    }
}
