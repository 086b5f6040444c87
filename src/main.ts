#!/usr/bin/env node
// Entry of the process. It loads nothing before it knows that this Node can.
const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
if (major < 20 || (major === 20 && minor < 19)) {
  process.stderr.write(
    `kasane: needs Node 20.19 or newer, this is ${process.versions.node}: see README.md\n`,
  );
  process.exitCode = 2;
} else {
  // Output is written synchronously, and nothing that is still open may keep the process.
  process.exit(await main());
}

/** The daemon needs nothing of the command line. */
async function main(): Promise<number> {
  if (process.argv[2] === 'daemon') return (await import('./cli/daemon.ts')).daemonMain();
  const { rawArguments } = await import('./cli/argv.ts');
  return (await import('./cli/program.ts')).run(rawArguments());
}

export {};
