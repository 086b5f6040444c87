// What a mount has been used for before it is measured. A root is mounted for days, and a daemon whose code has just
// been loaded is slow at first; the same for all peers, in files that no row touches. `--fresh` leaves it out.
import * as fs from 'node:fs';
import { make, work } from './cell.mjs';
import { sleep } from './stage.mjs';

const DIRS = 10;
const ROUNDS = 4;
/** What goes on behind, such as the records of a second on their way to an index, is not the next row's. */
const SETTLE_MS = 1500;

const filesOf = ({ quick }) => (quick ? 20 : 100);

export async function fillUsed({ bench, at }) {
  const files = filesOf(bench);
  for (let i = 0; i < ROUNDS; i += 1) {
    for (const name of ['read', 'modes', 'gone', 'edited'])
      await make(bench, 'tree', `${at.base}/used/${i}/${name}`, DIRS, files, 1024);
  }
  fs.mkdirSync(`${at.base}/used/into`);
}

export async function beInUse(cell) {
  const files = filesOf(cell.bench);
  for (let i = 0; i < ROUNDS; i += 1) {
    const dir = `used/${i}`;
    await work(cell, 'walk', dir);
    for (let again = 0; again < 2; again += 1)
      await work(cell, 'open', `${dir}/read`, [DIRS, files, DIRS * files]);
    await work(cell, 'lstat', `${dir}/read`, [DIRS, files, 4 * DIRS * files]);
    await work(cell, 'create', 'used/into', [DIRS * files, 0]);
    await work(cell, 'create', 'used/into', [DIRS * files, 4096]);
    await work(cell, 'run', dir, ['chmod', '-R', 'g+w', 'modes']);
    await work(cell, 'run', dir, ['cp', '-r', 'edited', 'copied']);
    await work(cell, 'run', dir, ['cp', '-rT', '--remove-destination', 'read', 'edited']);
    await work(cell, 'run', dir, ['rm', '-r', 'gone', 'copied']);
  }
  await sleep(SETTLE_MS);
}
