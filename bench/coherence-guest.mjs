// Child of coherence.mjs, so that a mount that hangs does not hang that: looks at names until they are as expected, or
// reads one file again and again.
import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { lookAt } from './coherence-changes.mjs';

const LIMIT_MS = 10_000;
const cell = new Int32Array(new SharedArrayBuffer(4));
const pause = (milliseconds) => Atomics.wait(cell, 0, 0, milliseconds);

const [, , what, at] = process.argv;

function look({ done, paths, expected }) {
  const since = () => Number(process.hrtime.bigint() - BigInt(done)) / 1e6;
  for (;;) {
    const now = since();
    const wrong = paths.findIndex((name, i) => lookAtLoosely(path.join(at, name)) !== expected[i]);
    if (wrong < 0) return { ms: now };
    if (now > LIMIT_MS) {
      const seen = lookAtLoosely(path.join(at, paths[wrong]));
      return {
        problem: `missed ${paths[wrong]}: ${seen.slice(0, 200)}, not ${expected[wrong].slice(0, 200)}`,
      };
    }
    pause(0.05);
  }
}

/** Between two calls a name may have gone. */
function lookAtLoosely(file) {
  try {
    return lookAt(file);
  } catch (error) {
    return error.code;
  }
}

const report = { count: 0, problems: [] };
const seen = new Set();
const buffer = Buffer.alloc(1 << 20);

/** In one read(2), as a program does that knows the size: nothing is asked twice. True: the last version. */
function readOnce() {
  const fd = fs.openSync(at);
  const before = fs.fstatSync(fd).size;
  const size = fs.readSync(fd, buffer);
  const after = fs.fstatSync(fd).size;
  fs.closeSync(fd);
  report.count += 1;
  const bytes = buffer.subarray(0, size);
  const line = bytes.indexOf(10);
  const [length, hash] = bytes.subarray(0, line).toString().split(' ');
  const rest = bytes.subarray(line + 1);
  const right = createHash('md5').update(rest).digest('hex') === hash;
  if (right && [size, before, after].every((one) => one === Number(length))) seen.add(hash);
  else
    report.problems.push(
      `torn: ${size} bytes read, fstat ${before} ${after}, of ${length}, ${right ? 'whole' : 'not whole'}`,
    );
  return rest.subarray(0, 4).equals(Buffer.from('end\n'));
}

process.on('message', (message) => {
  if (what === 'look') {
    process.send(look(message));
    return;
  }
  while (report.problems.length < 5 && !readOnce()) pause(0.5);
  process.send({ ...report, versions: seen.size });
});
