// A store in a process of its own, for tests that kill it. Arguments: the built sources, what to do, the state
// directory. Tells on its output, a line each, what is durable.
import * as fs from 'node:fs';
import * as path from 'node:path';
import { pathToFileURL } from 'node:url';

const [dist, what, stateDir] = process.argv.slice(2);
const load = (file) => import(pathToFileURL(path.join(dist, 'versions', file)).href);
const say = (line) => fs.writeSync(1, `${line}\n`);
const silent = { debug() {}, info() {}, warn() {}, error() {} };

async function write() {
  const { openStore } = await load('store.js');
  const store = await openStore({ stateDir, log: silent });
  for (let n = 0; ; n++) {
    const content = await store.ancestors.put(Buffer.from(`content ${n} `.repeat(50)));
    const version = store.versions.add(`etc/file${n % 7}`, {
      content,
      mode: 0o100644,
      uid: 0,
      gid: 0,
      size: 1,
      mtime: 1,
      target: null,
      xattrs: [],
    });
    const seq = store.events.add({ kind: 'merged', path: `etc/file${n % 7}`, version });
    await store.flush();
    say(`${seq} ${version} ${content}`);
  }
}

async function append() {
  const { JournalWriter } = await load('journal.js');
  const fd = fs.openSync(stateDir, 'r');
  const writer = new JournalWriter(fd);
  for (let n = 0; ; n++) {
    if (writer.append({ kind: 'added', path: `new${n}`, time: n }) !== 0) throw new Error('append failed');
    if (n % 100 === 99) writer.rotate();
    say(String(n));
  }
}

async function hold() {
  const { openStore } = await load('store.js');
  try {
    globalThis.store = await openStore({ stateDir, log: silent });
    say('open');
    setInterval(() => {}, 1000);
  } catch (error) {
    say(`${error.errno} ${error.message}`);
  }
}

await { write, append, hold }[what]();
