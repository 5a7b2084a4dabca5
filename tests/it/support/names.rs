//! A resolver whose answers are written down beforehand: names in a test mean what the test says.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Answers by name; each is given once, but the last one again and again.
#[derive(Clone, Default)]
pub(crate) struct Names {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    answers: BTreeMap<String, VecDeque<Vec<IpAddr>>>,
    asked: Vec<String>,
}

impl Names {
    /// What `name` means: the first time, the second time, and so on.
    pub(crate) fn mean(&self, name: &str, answers: &[&[&str]]) {
        let parsed = |answer: &&[&str]| {
            let addresses = answer.iter().map(|it| it.parse().expect("an address"));
            addresses.collect()
        };
        let answers = answers.iter().map(parsed).collect();
        self.lock().answers.insert(name.to_owned(), answers);
    }

    /// The names that were asked for, in order.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.lock().asked.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no question panicked")
    }
}

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        let mut state = self.lock();
        state.asked.push(name.as_str().to_owned());
        let answers = state.answers.get_mut(name.as_str());
        let answer = answers.and_then(|answers| match answers.len() {
            0 | 1 => answers.front().cloned(),
            _ => answers.pop_front(),
        });
        Box::pin(async move {
            let addresses = answer.ok_or("no such name")?;
            let addresses = addresses.into_iter().map(|ip| SocketAddr::new(ip, 0));
            Ok(Box::new(addresses) as Addrs)
        })
    }
}
