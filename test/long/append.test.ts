// Appending: at the end, whatever the kernel takes that to be, and each line once, whoever appends at the same time.
// The kernel writes at the size that it remembers, and asks nobody. Without passthrough, as an ordinary user has it,
// such a write comes to the daemon, which knows better; past the daemon the file beneath does.
import { expect } from 'vitest';
import { dpkgReplace } from '../lib/base-update.ts';
import { type Layers, mainFile, withLayers, withMount } from '../lib/kasane.ts';
import { mountTest } from '../lib/needs.ts';
import { sh } from '../lib/run.ts';
import { giveToUser, usersNeed, withUsersMount } from '../lib/users.ts';

const lines = (first: string, last: string) => `${first}\n2\n3\n4\n5\n6\n7\n${last}\n`;

for (const coherence of ['check', 'notify']) {
  mountTest(
    `what is appended to a file stands at its end, when the open of it has moved that by a merge (${coherence})`,
    () =>
      withLayers(async (layers) => {
        await sh('printf "%s" "$2" > "$1/short"; cp "$1/short" "$1/long"', [layers.base, lines('1', '8')]);
        await giveToUser(layers);
        await withUsersMount(
          layers,
          'user',
          async (mount) => {
            await mount.sh('cd "$1"; for f in short long; do sed -i s/^1$/guest/ $f; cat $f; done');
            await dpkgReplace(`${layers.base}/long`, lines('1', 'a line that the update has made longer'));
            await dpkgReplace(`${layers.base}/short`, lines('1', ''));
            // Here the kernel has the old sizes from the look-ups, as a rule; the opens wait for the merges.
            const script =
              'cd "$1"; for f in short long; do stat -c %s $f > /dev/null; echo tail >> $f; done; cat short long';
            const [short, long] = ['', 'a line that the update has made longer'].map(
              (last) => `${lines('guest', last)}tail\n`,
            );
            expect(await mount.sh(script)).toBe(`${short}${long}`);
          },
          ['--coherence', coherence],
        );
      }),
    usersNeed,
  );
}

mountTest(
  'what is stored through a map of a file that is open for appending keeps its place',
  () =>
    withLayers(async (layers) => {
      await giveToUser(layers);
      await withUsersMount(layers, 'user', async (mount) => {
        const script = `
import mmap, os
fd = os.open('f', os.O_RDWR | os.O_APPEND | os.O_CREAT)
os.write(fd, b'0' * 8192)
m = mmap.mmap(fd, 8192)
m[4096:4102] = b'stored'
m.flush()
os.write(fd, b'end')
m[0:5] = b'again'
`;
        await mount.sh(`cd "$1"; python3 - <<'END'\n${script}END`);
        const own = await sh('cat "$1/f"', [layers.overlay]);
        expect(own).toBe(`again${'0'.repeat(4091)}stored${'0'.repeat(4090)}end`);
      });
    }),
  usersNeed,
);

const COUNT = 30;
const header = (n: number) => `# version ${n}\n2\n3\n4\n5\n6\n7\n8\n`;
const writers = ['opens', 'keeps', 'also opens'];

/** Three guests at once, one of which keeps the file open for a while, append to a copy and to what nobody has brought up. */
const append = `
cd "$1"
opens() { for i in $(seq ${COUNT}); do echo "$2 $i" >> $1; done; }
keeps() { for n in 1 2 3 4 5; do for i in $(seq ${COUNT / 5}); do echo "$2 $(((n - 1) * ${COUNT / 5} + i))"; done >> $1; done; }
opens copied opens & keeps copied keeps & opens copied 'also opens' &
opens fresh opens & keeps fresh keeps & opens fresh 'also opens' &
wait
`;

async function withUpdates(layers: Layers, work: Promise<unknown>): Promise<number> {
  let over = false;
  const end = work.finally(() => {
    over = true;
  });
  let version = 1;
  do {
    version += 1;
    for (const name of ['copied', 'fresh']) await dpkgReplace(`${layers.base}/${name}`, header(version));
  } while (!over);
  await end;
  return version;
}

/** After the first `skip` lines. */
function expectAll(text: string, skip: number, what: string): void {
  const all = text.split('\n').slice(skip, -1);
  const expected = writers.flatMap((who) => Array.from({ length: COUNT }, (_, i) => `${who} ${i + 1}`));
  expect([...all].sort(), what).toEqual(expected.sort());
  // Each guest's in their order.
  for (const who of writers) {
    const numbers = all
      .filter((line) => line.startsWith(`${who} `))
      .map((line) => Number(line.split(' ').at(-1)));
    expect(numbers, what).toEqual(numbers.toSorted((a, b) => a - b));
  }
}

async function prove(layers: Layers, shell: (script: string) => Promise<string>): Promise<void> {
  await shell('cd "$1"; chmod 640 copied; echo >> copied; truncate -s -1 copied');
  const version = await withUpdates(layers, shell(append));
  await shell(`${process.execPath} "$2" reconcile "$1"`);
  for (const name of ['copied', 'fresh']) {
    const text = await shell(`cat "$1/${name}"`);
    expect(text.slice(0, header(version).length), name).toBe(header(version));
    expectAll(text, 8, name);
  }
}

mountTest(
  'lines that guests append while the base is updated are all there, once each: past the daemon',
  () =>
    withLayers(async (layers) => {
      await sh('for f in copied fresh; do printf "%s" "$2" > "$1/$f"; done', [layers.base, header(1)]);
      await withMount(layers, (mount) => prove(layers, (script) => mount.sh(script, [mount.dir, mainFile])));
    }),
);

mountTest(
  'lines that are appended past the daemon and, for the sake of set-id bits, through it are all there',
  () =>
    withLayers((layers) =>
      withMount(layers, async (mount) => {
        // The first has it open past the daemon from before there were such bits.
        await mount.sh(
          `exec 3>> file; chmod 4777 file
        lines() { for i in $(seq ${COUNT}); do echo "$1 $i"; done; }; export -f lines
        lines keeps >&3 & bash -c 'lines opens >> file' &
        setpriv --reuid=65534 --clear-groups bash -c 'lines "also opens" >> file' & wait`,
        );
        expectAll(await mount.read('file'), 0, 'file');
        expect(await mount.sh('stat -c %a file')).toBe('777\n');
      }),
    ),
);

mountTest(
  'lines that guests append while the base is updated are all there, once each: through the daemon',
  () =>
    withLayers(async (layers) => {
      await sh('for f in copied fresh; do printf "%s" "$2" > "$1/$f"; done', [layers.base, header(1)]);
      await giveToUser(layers);
      await withUsersMount(layers, 'user', (mount) => prove(layers, mount.sh));
    }),
  usersNeed,
);
