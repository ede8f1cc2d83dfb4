// Sends events as an ordinary kafkajs client: node produce.js BOOTSTRAP TOPIC CODEC USER COUNT
const { Kafka, CompressionTypes, CompressionCodecs, Partitioners, logLevel } = require('kafkajs')
const [bootstrap, topic, codec, userPrefix, count] = process.argv.slice(2)

CompressionCodecs[CompressionTypes.Snappy] = require('kafkajs-snappy')
// lz4js writes frames of dependent blocks, which Kafka refuses
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: (encoder) => require('lz4-napi').compressFrame(encoder.buffer),
  decompress: (buffer) => require('lz4-napi').decompressFrame(buffer),
})
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: (encoder) => zstd((simple) => simple.compress(encoder.buffer)),
  decompress: (buffer) => zstd((simple) => simple.decompress(buffer)),
})

function zstd(work) {
  return new Promise((resolve) => {
    require('zstd-codec').ZstdCodec.run((library) => resolve(Buffer.from(work(new library.Simple()))))
  })
}

const compression = {
  none: CompressionTypes.None, gzip: CompressionTypes.GZIP, snappy: CompressionTypes.Snappy,
  lz4: CompressionTypes.LZ4, zstd: CompressionTypes.ZSTD,
}[codec]

async function main() {
  const kafka = new Kafka({ clientId: 'hrnn-test', brokers: bootstrap.split(','), logLevel: logLevel.ERROR })
  const producer = kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner })
  await producer.connect()
  const messages = []
  for (let n = 0; n < Number(count); n++) {
    const user = `${userPrefix}-${n % 6}`
    const event = { user_id: user, item_id: `item-${n}`, timestamp: Date.now() / 1000 }
    messages.push({ key: user, value: JSON.stringify(event) })
  }
  await producer.send({ topic, compression, messages })
  await producer.disconnect()
}

main().catch((error) => { console.error(error); process.exit(1) })
