// Listings that tell attributes too: who walks a tree and looks at each file asks once per directory.
import * as fs from 'node:fs';
import { expect } from 'vitest';
import { connectVerbs } from '../../src/control/client.ts';
import { runtimePaths } from '../../src/control/registry.ts';
import { startAgent } from '../lib/agent.ts';
import { dpkgReplace, ripen } from '../lib/base-update.ts';
import { caughtUp, type Mount, withLayers, withMount } from '../lib/kasane.ts';
import { abortConnection, mountAt } from '../lib/mounts.ts';
import { mountTest } from '../lib/needs.ts';
import { sh } from '../lib/run.ts';

const options = ['--coherence', 'notify'];

async function answered(mount: Mount, opcode: string): Promise<number> {
  const verbs = connectVerbs(runtimePaths(mount.dir).socket, { timeoutMs: 60_000 });
  return (await verbs.metrics()).opcodes.find((row) => row.opcode === opcode)?.count ?? 0;
}

mountTest('a walk that looks at each file asks by directory, and finds what a plain walk finds', () =>
  withLayers(async (layers) => {
    await sh(
      `cd "$1"; for d in a b c; do mkdir $d; for ((n = 0; n < 300; n++)); do echo $n > $d/file-of-$n; done; done
       ln -s a/file-of-1 link; mkfifo fifo; mkdir -p a/deep/er; ln a/file-of-2 twice`,
      [layers.base],
    );
    await withMount({ ...layers, options }, async (mount) => {
      const walk =
        "cd \"$1\"; find . -path ./.kasane -prune -o -printf '%p %m %y ' \\( -type d -printf '\\n' -o -printf '%n %s %T@\\n' \\) | sort";
      await mount.sh('echo own > b/own; rm c/file-of-3; echo more >> c/file-of-4');
      await sh('cd "$1"; echo own > b/own; rm c/file-of-3; cp -p "$2/c/file-of-4" c', [
        layers.base,
        layers.overlay,
      ]);
      // Else what a directory is told to have may be doubted while it is told.
      await caughtUp(mount.dir);
      const before = await answered(mount, 'LOOKUP');
      const seen = await sh(walk, [mount.dir]);
      expect(await answered(mount, 'READDIRPLUS')).toBeGreaterThan(5);
      expect((await answered(mount, 'LOOKUP')) - before).toBeLessThan(50);
      const plain = await sh(walk, [layers.base]);
      const times = (text: string) => text.replace(/^(.*(?:own|file-of-4)) .*$/gm, '$1');
      expect(times(seen)).toBe(times(plain));
    });
  }),
);

mountTest('a listing starts no merge of what lies in it; an open of one file merges that one', () =>
  withLayers(async (layers) => {
    const lines = (word: string) => `${word}\n${'x\n'.repeat(20)}`;
    const names = ['one', 'two'];
    for (const name of names) fs.writeFileSync(`${layers.base}/${name}`, `${lines('a')}end\n`);
    await withMount({ ...layers, options }, async (mount) => {
      await ripen(layers.base);
      for (const name of names) await mount.write(name, `${lines('guest')}end\n`);
      for (const name of names) await dpkgReplace(`${layers.base}/${name}`, `${lines('a')}base\n`);
      await caughtUp(mount.dir);
      expect(fs.readdirSync(mount.dir).sort()).toEqual(names);
      expect(await mount.read('two')).toBe(`${lines('guest')}base\n`);
      expect(fs.readdirSync(mount.dir).sort()).toEqual(names);
      expect(await answered(mount, 'READDIRPLUS')).toBeGreaterThan(0);
      expect(fs.readFileSync(`${layers.overlay}/one`, 'latin1')).toBe(`${lines('guest')}end\n`);
      expect(await mount.read('one')).toBe(`${lines('guest')}base\n`);
    });
  }),
);

mountTest('a listing that the kernel has costs no request, until the base or the guest changes it', () =>
  withLayers(async (layers) => {
    await sh('cd "$1"; mkdir -p d/sub; touch d/a d/b', [layers.base]);
    await withMount({ ...layers, options }, async (mount) => {
      const list = () => sh('cd "$1"; ls d', [mount.dir]);
      const asked = async () => {
        const counts = ['OPENDIR', 'READDIR', 'READDIRPLUS', 'RELEASEDIR'].map((one) => answered(mount, one));
        return (await Promise.all(counts)).reduce((all, one) => all + one, 0);
      };
      await mount.sh('touch d/own');
      expect(await list()).toBe('a\nb\nown\nsub\n');
      const before = await asked();
      for (let i = 0; i < 5; i++) expect(await list()).toBe('a\nb\nown\nsub\n');
      expect(await asked()).toBe(before);
      await sh('cd "$1"; rm a; touch c', [`${layers.base}/d`]);
      await caughtUp(mount.dir);
      expect(await list()).toBe('b\nc\nown\nsub\n');
      await mount.sh('rm d/b; mkdir d/new; mv d/own d/mine');
      expect(await list()).toBe('c\nmine\nnew\nsub\n');
      expect(await asked()).toBeGreaterThan(before);
    });
  }),
);

mountTest('of a listing whose changes are not heard of the kernel keeps nothing', () =>
  withLayers(async (layers) => {
    const { base } = layers;
    await sh('cd "$1"; mkdir -p d/sub; touch d/sub/a; echo base > clash', [base]);
    await withMount({ ...layers, options }, (mount) => mount.sh('mv d moved; touch moved/sub/own'));
    await withMount({ ...layers, options }, async (mount) => {
      // What a renamed directory shows of the base is found by its name alone, and the control directory is made up.
      await mount.sh('ls moved/sub .kasane; echo guest > clash');
      for (const name of ['b', 'c']) {
        fs.writeFileSync(`${base}/d/sub/${name}`, '');
        expect(await mount.sh('ls moved/sub')).toContain(`${name}\n`);
        fs.rmSync(`${base}/d/sub/${name}`);
        expect(await mount.sh('ls moved/sub')).toBe('a\nown\n');
      }
      expect(await mount.sh('ls .kasane/conflict')).toBe('');
      await dpkgReplace(`${base}/clash`, 'other\n');
      expect(await mount.sh('cat clash; ls .kasane/conflict')).toMatch(/^guest\n.+\n/);
    });
  }),
);

mountTest('what a renamed directory has is not what was listed of it before the base followed', () =>
  withLayers(async (layers) => {
    const { base } = layers;
    await sh('cd "$1"; mkdir -p a/d; touch a/d/old', [base]);
    await withMount({ ...layers, options }, async (mount) => {
      expect(await mount.sh('ls a/d; mv a/d moved; ls moved')).toBe('old\nold\n');
      await sh('cd "$1"; mv a a.old; mkdir -p a/d; touch a/d/new', [base]);
      await caughtUp(mount.dir);
      expect(await mount.sh('ls moved')).toBe('new\n');
    });
  }),
);

mountTest('who stands in a directory that the base moves away sees what is there by then', () =>
  withLayers(async (layers) => {
    const { base } = layers;
    await sh('cd "$1"; mkdir -p gone moved; touch gone/a moved/a', [base]);
    await withMount({ ...layers, options }, async (mount) => {
      const agents = ['gone', 'moved'].map((name) => startAgent({ cwd: `${mount.dir}/${name}` }));
      const list = () =>
        Promise.all(agents.map((agent) => agent.call('readdirSync', '.').catch(({ code }) => code)));
      try {
        expect(await list()).toEqual([['a'], ['a']]);
        await sh('cd "$1"; mv gone elsewhere; mv moved other; mkdir moved; touch moved/b', [base]);
        await caughtUp(mount.dir);
        expect(await list()).toEqual(['ENOENT', ['b']]);
      } finally {
        for (const agent of agents) await agent.stop();
      }
    });
  }),
);

mountTest(
  'what a base that cannot be read any more has is an error, and not left out',
  () =>
    withLayers(async (layers) => {
      const { dir, base } = layers;
      await sh(
        'cd "$1"; mkdir -p tree/moved tree/kept; touch tree/moved/theirs; fuse-overlayfs -o lowerdir=tree base',
        [dir],
      );
      await withMount(layers, async (mount) => {
        await mount.sh('mkdir own; mv moved own/moved; touch own/moved/ours; ls own/moved kept');
        abortConnection(mountAt(base)?.minor as number);
        for (const name of ['own/moved', 'kept', '.'])
          expect(await mount.sh('! ls "$1" 2>&1', [name])).toMatch(/not connected|aborted/);
      });
    }),
  { commands: ['fuse-overlayfs'] },
);
