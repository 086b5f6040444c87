// A random mixture of changes of a base, as fast as they can be made; the same for the same seed. For a child process.
import * as fs from 'node:fs';
import { version as contentOf, generator } from '../../bench/coherence-changes.mjs';

/** Its first line says how long it is and what the rest hashes to (agent-child.mjs, readVersions). */
export const version = (word, lines = 40) => contentOf(word, lines);

const rename = (from, to) => fs.renameSync(from, to);
/** A file comes to a path by one rename. */
const put = (root, path, content) => {
  fs.writeFileSync(`${root}/.next`, content);
  rename(`${root}/.next`, path);
};
/** Of some 90 KiB: what is above 64 KiB is read past the daemon. */
const large = (i) => `large ${i}\n`.repeat(7000 + (i % 4000));

/** Each gets the tree's root and two paths in it, either of which may be anything or nothing. */
const kinds = [
  (a, _, i) => fs.writeFileSync(a, `in place ${i}\n`),
  (a, _, i) => fs.appendFileSync(a, `more ${i}\n`),
  (a, _, i, root) => put(root, a, `by rename ${i}\n`.repeat(1 + (i % 400))),
  (a, _, i, root) => put(root, a, large(i)),
  (a, _, i) => fs.writeFileSync(a, large(i)),
  (a) => fs.truncateSync(a, 3),
  (a) => fs.rmSync(a),
  (a) => fs.rmSync(a, { recursive: true }),
  (a) => fs.mkdirSync(`${a}/deep/er`, { recursive: true }),
  (a, b) => rename(a, b),
  (a, b) => rename(a, b),
  (a, b) => fs.linkSync(a, b),
  (a, _, i) => fs.symlinkSync(`target${i}`, a),
  (a, _, i) => fs.chmodSync(a, 0o700 | (i & 0o77)),
  (a, _, i) => fs.utimesSync(a, i, i + 1),
];

/** How many of so many changes could be made. `root`/replaced is replaced by rename now and then, and never else. */
export function changeStorm(root, seed, count) {
  const random = generator(seed);
  const place = () => {
    const names = ['a', 'b', 'c', 'd', 'e', 'f'];
    const path = Array.from({ length: 1 + random(3) }, () => names[random(names.length)]);
    return `${root}/tree/${path.join('/')}`;
  };
  let made = 0;
  for (let i = 0; i < count; i++) {
    if (random(20) === 0) {
      put(root, `${root}/replaced`, version(`version ${seed} ${i}${'x'.repeat(random(30))}`, 400));
      made += 1;
      continue;
    }
    try {
      kinds[random(kinds.length)](place(), place(), i, root);
      made += 1;
    } catch (error) {
      if (error.code === undefined) throw error;
    }
  }
  return made;
}
