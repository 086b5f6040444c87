// A base with one big file, whose copy-up takes a while, and clients that want it, or something else meanwhile.
import * as fs from 'node:fs';
import { expect } from 'vitest';
import { type Agent, startAgent } from './agent.ts';
import { ripen } from './base-update.ts';
import { type Layers, withLayers, withMount } from './kasane.ts';
import { sh, waitUntil } from './run.ts';
import { hashTree } from './tree.ts';

export const MIB = 1024 * 1024;
const NAMES = 200;

export interface Stage extends Layers {
  mountDir: string;
  agents: Agent[];
  /** MiB. */
  size: number;
  /** Whether the copy of `big` is being made, and is not published. */
  copying: () => boolean;
}

/** The agents live as long as `body`. Proves that nothing stays in work/, and that the base is untouched. */
export async function withBigFile(
  spec: { agents: number; sizeMiB: number },
  body: (stage: Stage) => Promise<void>,
): Promise<void> {
  await withLayers(async (layers) => {
    await sh(
      `cd "$1"; head -c "$2"M /dev/zero | tr '\\0' b > big; echo small > small
       mkdir many; for ((n = 1; n <= $3; n++)); do echo $n > many/$n; done`,
      [layers.base, String(spec.sizeMiB), String(2 * NAMES)],
      { timeout: 120_000 },
    );
    const before = await hashTree(layers.base);
    // An origin of the same second is looked at once more.
    await ripen(`${layers.base}/big`);
    await withMount(layers, async (mount) => {
      const agents = Array.from({ length: spec.agents }, () => startAgent({ timeout: 200_000 }));
      const work = `${layers.overlay}/.kasane/work`;
      const copying = () => fs.readdirSync(work).length > 0 && !fs.existsSync(`${layers.overlay}/big`);
      try {
        await body({ ...layers, mountDir: mount.dir, agents, size: spec.sizeMiB, copying });
      } finally {
        for (const agent of agents) await agent.stop();
      }
      expect(await waitUntil(() => fs.readdirSync(work).length === 0, 30_000)).toBe(true);
    });
    expect(await hashTree(layers.base)).toBe(before);
  });
}

/** Whether a promise is pending, for whoever asks later. */
function watch(work: Promise<unknown>): () => boolean {
  let pending = true;
  const done = () => {
    pending = false;
  };
  work.then(done, done);
  return () => pending;
}

/** Of requests that wait for the copy or the sync one comes back while that is pending, or another, but not so many. */
const SURELY_ANSWERED = 10;

/** One client copies the big file up, writes to half of it and syncs; the other is answered all the while. */
export async function copyUpInStorm({ mountDir, agents, overlay, size }: Stage): Promise<void> {
  const [writer, other] = agents as [Agent, Agent];
  // Names that the kernel does not know yet, so that each is a request to the daemon.
  const storm = async (from: number, pending: () => boolean) => {
    let answered = 0;
    for (let n = from; n < from + NAMES && pending(); n++) {
      await other.call('lstatSync', `${mountDir}/many/${n}`);
      if (pending()) answered += 1;
    }
    return answered;
  };
  const opened = writer.call<number>('openSync', `${mountDir}/big`, 'r+');
  expect(await storm(1, watch(opened))).toBeGreaterThan(SURELY_ANSWERED);
  const fd = await opened;
  const chunk = Buffer.alloc(8 * MIB, 'w');
  for (let at = 0; at < size / 2; at += 8) {
    await writer.call('writeSync', fd, chunk, 0, chunk.length, at * MIB);
  }
  const synced = writer.call('fsyncSync', fd);
  expect(await storm(1 + NAMES, watch(synced))).toBeGreaterThan(0);
  await synced;
  expect(fs.statSync(`${overlay}/big`).size).toBe(size * MIB);
}
