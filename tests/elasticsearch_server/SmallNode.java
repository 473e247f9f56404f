import java.util.Map;
import org.elasticsearch.common.logging.LogConfigurator;
import org.elasticsearch.common.settings.Settings;
import org.elasticsearch.env.Environment;
import org.elasticsearch.node.InternalSettingsPreparer;
import org.elasticsearch.node.Node;

/** An Elasticsearch node; the arguments are its settings, name=value. */
public class SmallNode {
    public static void main(String[] arguments) throws Exception {
        // first: other classes of Elasticsearch cannot be loaded without a logger
        LogConfigurator.configureESLogging();
        Settings.Builder settings = Settings.builder();
        for (String argument : arguments) {
            String[] pair = argument.split("=", 2);
            settings.put(pair[0], pair[1]);
        }
        Environment environment =
            InternalSettingsPreparer.prepareEnvironment(settings.build(), Map.of(), null, () -> "test");
        Node node = new Node(environment);
        // its data is thrown away: nothing to close in order
        Runtime.getRuntime().addShutdownHook(new Thread(() -> Runtime.getRuntime().halt(0)));
        node.start();
        Thread.currentThread().join();
    }
}
