// Sends events as an ordinary Java client: java -cp 'JARS/*' Produce.java BOOTSTRAP TOPIC CODEC USER COUNT
import java.util.Properties;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;

public class Produce {
    public static void main(String[] args) throws Exception {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", args[0]);
        settings.put("compression.type", args[2]);
        settings.put("linger.ms", "50");
        settings.put("key.serializer", "org.apache.kafka.common.serialization.StringSerializer");
        settings.put("value.serializer", "org.apache.kafka.common.serialization.StringSerializer");
        int count = Integer.parseInt(args[4]);
        try (KafkaProducer<String, String> producer = new KafkaProducer<>(settings)) {
            for (int n = 0; n < count; n++) {
                String user = args[3] + "-" + n % 6;
                String value = String.format(java.util.Locale.ROOT,
                    "{\"user_id\":\"%s\",\"item_id\":\"item-%d\",\"timestamp\":%.3f}",
                    user, n, System.currentTimeMillis() / 1000.0);
                producer.send(new ProducerRecord<>(args[1], user, value));
            }
        }
    }
}
