// The right base, where it takes many files to tell: how many have gone from it at once.
import * as fs from 'node:fs';
import { expect } from 'vitest';
import { mountTest } from '../lib/needs.ts';
import { waitUntil } from '../lib/run.ts';
import { baseState, text, withGuest } from '../lib/versioning.ts';

const numbered = (dir: string, count: number) =>
  Object.fromEntries(Array.from({ length: count }, (_, i) => [`${dir}/f${i}`, text()]));

mountTest('what lies beneath a directory that the guest has renamed has not gone from the base', () =>
  withGuest(
    { files: { ...numbered('srv/site', 120), 'etc/gone': text(), 'etc/changed': text() } },
    async (guest) => {
      await guest.mount.sh(
        'mv srv/site srv/www; for f in srv/www/* etc/gone etc/changed; do echo guest >> "$f"; done',
      );
      await guest.changeBase(() => fs.rmSync(`${guest.base}/etc/gone`));
      expect(await guest.read('etc/gone')).toBe(`${text()}guest\n`);
      expect(await baseState(guest)).toBe('accepted');
      await guest.update('etc/changed', text({ 3: 'BASE' }));
      expect(await guest.read('etc/changed')).toBe(`${text({ 3: 'BASE' })}guest\n`);
    },
  ),
);

mountTest('what has been met with before the rest went counts among what is gone at once', () =>
  withGuest(
    { files: { ...numbered('one', 60), ...numbered('two', 60), other: '' }, options: ['--settle', '600'] },
    async (guest) => {
      await guest.mount.sh('for f in one/* two/*; do true >> "$f"; done');
      for (const dir of ['one', 'two']) {
        expect(await baseState(guest)).toBe('accepted');
        await guest.changeBase(() => fs.rmSync(`${guest.base}/${dir}`, { recursive: true }));
        // They are counted once a second at most.
        await guest.mount.sh(`cat ${dir}/* > /dev/null; sleep 1.1; cat ${dir}/f0 > /dev/null`);
      }
      expect(await waitUntil(async () => (await baseState(guest)) !== 'accepted')).toBe(true);
    },
  ),
);
