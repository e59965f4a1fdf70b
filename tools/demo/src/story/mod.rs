//! The story of the product in eight steps, told in plain sentences while it happens. Each step checks what it says.

mod steps;
mod world;

pub use world::{Broken, Cast, World, ensure};

/// Told what happens, for a terminal or for nobody.
pub type Tell<'a> = &'a mut dyn FnMut(&str);

/// How many steps there are.
pub const STEPS: usize = 8;

/// Plays the story; how many steps held. It stops at the first that does not.
///
/// `between` is called before each step with its number, from 1: tests break something there.
pub async fn play(cast: Cast, tell: Tell<'_>, between: impl AsyncFnMut(usize)) -> usize {
    play_first(STEPS, cast, tell, between).await
}

/// The first steps of the story only, see [`play`].
pub async fn play_first(steps: usize, cast: Cast, tell: Tell<'_>, mut between: impl AsyncFnMut(usize)) -> usize {
    let mut world = World::new(cast);
    for step in 1..=steps {
        between(step).await;
        if let Err(Broken(reason)) = steps::step(step, &mut world, tell).await {
            tell(&format!("  step {step} does not hold: {reason}"));
            return step - 1;
        }
    }
    steps
}
