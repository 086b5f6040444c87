// The rules of conformance.ts on plain directories: this proves the rules, before they prove Kasane.
import * as fs from 'node:fs';
import * as path from 'node:path';
import { tracked } from '../lib/cleanup.ts';
import { conformance, populate } from '../lib/conformance.ts';

conformance('a plain directory', async () => {
  const dir = fs.mkdtempSync('/var/tmp/kasane-test-');
  tracked(() => fs.promises.rm(dir, { recursive: true, force: true }));
  fs.chmodSync(dir, 0o755);
  const plain = path.join(dir, 'plain');
  fs.mkdirSync(plain);
  await populate(plain);
  return plain;
});
