// Opens a .contract file as a wallet would. Usage: node check-bundle.mjs FILE FOLDER_WITH_NODE_MODULES
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join, resolve } from 'node:path';

const [file, modules] = process.argv.slice(2);
// The library is not installed beside this script, so it has to be looked up from where it is.
const require = createRequire(join(resolve(modules), 'package.json'));
const { Abi } = require('@polkadot/api-contract');
const { blake2AsHex } = require('@polkadot/util-crypto');

const abi = new Abi(JSON.parse(readFileSync(file, 'utf8')));
const failures = [];

const code = abi.info.source.wasm;
const hash = blake2AsHex(code, 256);
if (hash !== abi.info.source.wasmHash.toHex()) {
  failures.push(`the code's hash is ${hash}, the bundle says ${abi.info.source.wasmHash.toHex()}`);
}

// Every type that a call or an event needs must resolve, or a wallet could not build the call or show the event.
const resolves = (what, type) => {
  try {
    abi.registry.createType(type);
  } catch (error) {
    failures.push(`${what}: ${type} does not resolve: ${error.message}`);
  }
};
for (const call of [...abi.constructors, ...abi.messages]) {
  call.args.forEach((arg) => resolves(`${call.identifier}(${arg.name})`, arg.type.lookupName || arg.type.type));
  if (call.returnType) resolves(`${call.identifier} returns`, call.returnType.lookupName || call.returnType.type);
}
for (const event of abi.events) {
  event.args.forEach((arg) => resolves(`${event.identifier}.${arg.name}`, arg.type.lookupName || arg.type.type));
  if (!event.signatureTopic) failures.push(`event ${event.identifier} has no signature topic`);
}

const spell = (call) => {
  const flags = [call.isMutating ? 'tx' : 'read', call.isPayable ? 'payable' : ''].filter(Boolean).join(' ');
  return `  ${call.identifier}(${call.args.map((arg) => arg.name).join(', ')})  ${call.selector.toHex()}  ${flags}`;
};
console.log(`${abi.info.contract.name} ${abi.info.contract.version}: ${code.length} bytes of code, hash ${hash}`);
console.log(`${abi.constructors.length} constructors\n${abi.constructors.map(spell).join('\n')}`);
console.log(`${abi.messages.length} messages\n${abi.messages.map(spell).join('\n')}`);
console.log(`${abi.events.length} events\n  ${abi.events.map((event) => event.identifier.split('::').pop()).join(', ')}`);

for (const failure of failures) console.error(`error: ${failure}`);
process.exit(failures.length ? 1 : 0);
