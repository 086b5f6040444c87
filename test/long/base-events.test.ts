// What is told of changes of the base while it is used (--coherence notify).
import * as fs from 'node:fs';
import { expect } from 'vitest';
import { type Agent, startAgent } from '../lib/agent.ts';
import { type Layers, notifyBy, watchers, withLayers, withMount } from '../lib/kasane.ts';
import { mountTest } from '../lib/needs.ts';
import { isAlive, runOk, waitUntil } from '../lib/run.ts';

function replace(file: string, content: string): void {
  fs.writeFileSync(`${file}.new`, content);
  fs.renameSync(`${file}.new`, file);
}

/** Changes that the daemon finds all made, however long they take: it stands still meanwhile. */
function atOnce(pid: number, change: () => void): void {
  process.kill(pid, 'SIGSTOP');
  try {
    change();
  } finally {
    process.kill(pid, 'SIGCONT');
  }
}

for (const watcher of watchers) {
  mountTest(
    `events list each settled change of the base beneath what is in use, with its epoch (${watcher})`,
    () => withLayers((layers) => changesAreListed(layers, notifyBy(watcher))),
  );
  mountTest(
    `inotify in the mount tells of each change of the base, and nothing is copied up by that (${watcher})`,
    () => withLayers((layers) => guestsAreTold(layers, notifyBy(watcher))),
  );
}

async function changesAreListed({ base, overlay, mnt }: Layers, watched: string[]): Promise<void> {
  fs.mkdirSync(`${base}/etc`);
  for (const name of ['edited', 'replaced', 'removed', 'moved', 'unused', 'passing']) {
    fs.writeFileSync(`${base}/etc/${name}`, `${name}\n`);
  }
  const options = [...watched, '--settle', '0.2'];
  await withMount({ base, overlay, mnt, options }, async ({ sh, pid }) => {
    await sh('cat etc/edited etc/replaced etc/removed etc/moved etc/passing');
    const before = Number(await sh("sed -n 's/^epoch //p' .kasane/status"));
    atOnce(pid, () => {
      fs.rmSync(`${base}/etc/passing`);
      for (let i = 0; i < 100; i++) fs.appendFileSync(`${base}/etc/edited`, 'more\n');
      replace(`${base}/etc/replaced`, 'another\n');
      fs.rmSync(`${base}/etc/removed`);
      fs.renameSync(`${base}/etc/moved`, `${base}/etc/new name`);
      fs.appendFileSync(`${base}/etc/unused`, 'more\n');
      fs.writeFileSync(`${base}/etc/passing`, 'again\n');
    });
    const list = async () =>
      (await sh('cat .kasane/events'))
        .split('\n')
        .filter((line) => line.includes(' base-'))
        .map((line) => line.split(' ').toSpliced(2, 1))
        .map(([, epoch, ...rest]) => `${Number(epoch) > before} ${rest.join(' ')}`)
        .sort();
    let seen: string[] = [];
    const expected = [
      'true base-added etc/new name',
      'true base-changed etc/edited',
      'true base-removed etc/moved',
      'true base-removed etc/removed',
      'true base-replaced etc/passing',
      'true base-replaced etc/replaced',
    ];
    await waitUntil(async () => {
      seen = await list();
      return seen.length >= expected.length;
    });
    expect(seen).toEqual(expected);
  });
}

/** What inotify must have told of a directory `etc` and of its file `f`, after each change of the base. */
const told: Record<string, [change: (etc: string) => void, events: string[]]> = {
  'an edit in place': [
    (etc) => fs.appendFileSync(`${etc}/f`, 'more\n'),
    ['MODIFY etc/f', 'CLOSE_WRITE etc/f', 'MODIFY f', 'CLOSE_WRITE f'],
  ],
  'a replacement by rename': [
    (etc) => replace(`${etc}/f`, 'another\n'),
    ['MODIFY etc/f', 'CLOSE_WRITE etc/f', 'ATTRIB etc/f', 'MODIFY f', 'CLOSE_WRITE f', 'ATTRIB f'],
  ],
  chmod: [(etc) => fs.chmodSync(`${etc}/f`, 0o600), ['ATTRIB etc/f', 'ATTRIB f']],
  'chmod of a directory': [(etc) => fs.chmodSync(`${etc}/dir`, 0o700), ['ATTRIB etc/dir']],
  'an edit of a file that nobody has looked at': [
    (etc) => fs.appendFileSync(`${etc}/unused`, 'more\n'),
    ['MODIFY etc/unused', 'CLOSE_WRITE etc/unused'],
  ],
  'an edit of what can be run': [(etc) => fs.appendFileSync(`${etc}/run`, '# more\n'), ['ATTRIB etc/run']],
  'an edit by another name': [
    (etc) => fs.appendFileSync(`${etc}/../elsewhere/linked`, 'more\n'),
    ['MODIFY etc/linked', 'CLOSE_WRITE etc/linked'],
  ],
  'a new file': [(etc) => fs.writeFileSync(`${etc}/new`, 'new\n'), ['CREATE etc/new', 'CLOSE_WRITE etc/new']],
  'a new directory': [(etc) => fs.mkdirSync(`${etc}/newdir`), ['CREATE etc/newdir']],
  'a new symlink': [(etc) => fs.symlinkSync('f', `${etc}/newlink`), ['CREATE etc/newlink']],
  'a renamed file': [
    (etc) => fs.renameSync(`${etc}/old`, `${etc}/other`),
    ['DELETE etc/old', 'CREATE etc/other', 'CLOSE_WRITE etc/other'],
  ],
  'a removed directory': [(etc) => fs.rmdirSync(`${etc}/empty`), ['DELETE etc/empty']],
  'a removal': [(etc) => fs.rmSync(`${etc}/f`), ['DELETE etc/f', 'ATTRIB f', 'DELETE_SELF f']],
};

function fillEtc(base: string): void {
  for (const dir of ['etc/dir', 'etc/empty', 'elsewhere'])
    fs.mkdirSync(`${base}/${dir}`, { recursive: true });
  const names = ['f', 'old', 'unused', 'linked', 'mine', 'over', 'removed'];
  for (const name of names) fs.writeFileSync(`${base}/etc/${name}`, `${name}\n`);
  fs.writeFileSync(`${base}/etc/run`, '#!/bin/sh\n', { mode: 0o755 });
  fs.linkSync(`${base}/etc/linked`, `${base}/elsewhere/linked`);
}

/** Asked until all of it has been told; what was told besides is in the second list. */
async function hears(agent: Agent, inotify: number, expected: readonly string[]): Promise<string[]> {
  const all = new Set<string>();
  await waitUntil(async () => {
    for (const event of await agent.call<string[]>('heard', inotify)) all.add(event);
    return expected.every((event) => all.has(event));
  });
  return [...all].sort();
}

async function guestsAreTold({ base, overlay, mnt }: Layers, options: string[]): Promise<void> {
  fillEtc(base);
  await withMount({ base, overlay, mnt, options }, async ({ sh, pid }) => {
    const agent = startAgent();
    await sh(
      'cat etc/f etc/old etc/run etc/linked; ls -l etc elsewhere; rm etc/removed; echo mine > etc/mine',
    );
    const before = await sh('find "$1" -path "$1/.kasane" -prune -o -printf "%p %i %s %T@ %C@\n"', [overlay]);
    const inotify = await agent.call<number>('hear', -1, `${mnt}/etc`, 'etc');
    await agent.call('hear', inotify, `${mnt}/etc/f`, 'f');
    // What only its own watch tells of is to stay in use, whatever the kernel has to forget.
    for (const name of ['dir', 'linked']) await agent.call('openSync', `${mnt}/etc/${name}`, 'r');
    const problems: unknown[] = [];
    // What is the guest's own does not change by what the base does.
    fs.appendFileSync(`${base}/etc/removed`, 'more\n');
    let last: string[] = [];
    for (const [what, [change, expected]] of Object.entries(told)) {
      atOnce(pid, () => change(`${base}/etc`));
      const seen = await hears(agent, inotify, expected);
      // How many steps a change has is not known: what is new may be told of as changed once more, and late.
      const objects = expected.map((event) => event.split(' ')[1] as string);
      const missed = expected.some((event) => !seen.includes(event));
      const odd = seen.some((event) => ![...last, ...objects].includes(event.split(' ')[1] as string));
      if (missed || odd) problems.push({ what, seen, expected });
      last = objects;
    }
    expect(problems).toEqual([]);
    expect(await sh('find "$1" -path "$1/.kasane" -prune -o -printf "%p %i %s %T@ %C@\n"', [overlay])).toBe(
      before,
    );
    expect(isAlive(pid)).toBe(true);
    await agent.stop();
  });
}

mountTest('who is told of a change finds it, and what is mounted on the name has not been touched', () =>
  withLayers(async ({ base, overlay, mnt, dir }) => {
    fillEtc(base);
    fs.writeFileSync(`${dir}/bound`, 'bound\n');
    await withMount({ base, overlay, mnt, options: ['--coherence', 'notify'] }, async ({ pid }) => {
      const agent = startAgent();
      await runOk('mount', ['--bind', `${dir}/bound`, `${mnt}/etc/over`]);
      try {
        const inotify = await agent.call<number>('hear', -1, `${mnt}/etc`, 'etc');
        const stat = () =>
          JSON.stringify(fs.statSync(`${dir}/bound`, { bigint: true }), (_, value) => String(value));
        const before = stat();
        for (let i = 0; i < 50; i++) {
          atOnce(pid, () => {
            fs.appendFileSync(`${base}/etc/over`, 'more\n');
            replace(`${base}/etc/f`, `version ${i}\n`);
          });
          let seen: unknown;
          // The version before may be told of once more: then there is another one to come.
          await waitUntil(async () => {
            const events = await agent.call<string[]>('heard', inotify);
            if (!events.includes('CLOSE_WRITE etc/f')) return false;
            seen = await agent.call('readFileSync', `${mnt}/etc/f`, 'utf8');
            return seen === `version ${i}\n`;
          });
          expect(seen).toBe(`version ${i}\n`);
        }
        expect(stat()).toBe(before);
      } finally {
        await agent.stop();
        await runOk('umount', ['-l', `${mnt}/etc/over`]);
      }
    });
  }),
);

mountTest('a merge is told of by inotify, too', () =>
  withLayers(async ({ base, overlay, mnt }) => {
    const lines = ['one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight'];
    fs.writeFileSync(`${base}/copied`, `${lines.join('\n')}\n`);
    await withMount({ base, overlay, mnt, options: ['--coherence', 'notify'] }, async ({ sh }) => {
      const agent = startAgent();
      await sh('echo nine >> copied; cat copied');
      const inotify = await agent.call<number>('hear', -1, mnt, 'root');
      // A base that is younger than a copy by less than a second is looked at once more.
      await waitUntil(() => Date.now() - fs.statSync(`${overlay}/copied`).ctimeMs > 1100, 5000);
      replace(`${base}/copied`, `zero\n${lines.join('\n')}\n`);
      const merged = `zero\n${lines.join('\n')}\nnine\n`;
      expect(
        await waitUntil(async () => (await agent.call('readFileSync', `${mnt}/copied`, 'utf8')) === merged),
      ).toBe(true);
      const expected = ['MODIFY root/copied', 'CLOSE_WRITE root/copied', 'ATTRIB root/copied'];
      expect(await hears(agent, inotify, expected)).toEqual(expect.arrayContaining(expected));
      await agent.stop();
    });
  }),
);
