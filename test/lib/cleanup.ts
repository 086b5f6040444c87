// What a test has started and must not survive it. withX() takes its own things down; the rest (a test that
// timed out) goes at the end of the file, newest first.

const open = new Set<() => Promise<void>>();

/** Gives a function that takes it down once, now or at the end of the file. */
export function tracked(takeDown: () => Promise<void>): () => Promise<void> {
  let done: Promise<void> | null = null;
  const once = () => {
    open.delete(once);
    done ??= takeDown();
    return done;
  };
  open.add(once);
  return once;
}

export async function cleanUpAll(): Promise<void> {
  for (const takeDown of [...open].reverse()) await takeDown();
}
