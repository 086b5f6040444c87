// Appending where the kernel does not know how long a file is: it writes at the end that it remembers, and asks
// nobody. Without passthrough, as an ordinary user has it, such a write comes to the daemon, which knows better.
import { expect } from 'vitest';
import { dpkgReplace } from '../lib/base-update.ts';
import { withLayers } from '../lib/kasane.ts';
import { mountTest } from '../lib/needs.ts';
import { sh } from '../lib/run.ts';
import { giveToUser, usersNeed, withUsersMount } from '../lib/users.ts';

const lines = (first: string, last: string) => `${first}\n2\n3\n4\n5\n6\n7\n${last}\n`;

for (const coherence of ['check', 'notify']) {
  mountTest(
    `what is appended to a file stands at its end, when the open of it has made it longer by a merge (${coherence})`,
    () =>
      withLayers(async (layers) => {
        await sh('printf "%s" "$2" > "$1/short"; cp "$1/short" "$1/long"', [layers.base, lines('1', '8')]);
        await giveToUser(layers);
        await withUsersMount(
          layers,
          'user',
          async (mount) => {
            await mount.sh(
              'cd "$1"; for f in short long; do sed -i s/^1$/guest/ $f; cat $f; done > /dev/null',
            );
            await dpkgReplace(`${layers.base}/long`, lines('1', 'a line that the update has made longer'));
            await dpkgReplace(`${layers.base}/short`, lines('1', ''));
            // The kernel has the old sizes from the look-ups; the opens wait for the merges.
            const script =
              'cd "$1"; for f in short long; do stat -c %s $f; echo tail >> $f; done; cat short long';
            const merged = (last: string) => `${lines('guest', last)}tail\n`;
            expect(await mount.sh(script)).toBe(
              `20\n20\n${merged('')}${merged('a line that the update has made longer')}`,
            );
          },
          ['--coherence', coherence],
        );
      }),
    usersNeed,
  );
}
