// The version of Kasane, as it stands in package.json.
import * as fs from 'node:fs';
import * as path from 'node:path';

export function packageVersion(): string {
  const file = path.join(import.meta.dirname, '..', '..', 'package.json');
  return (JSON.parse(fs.readFileSync(file, 'utf8')) as { version: string }).version;
}
